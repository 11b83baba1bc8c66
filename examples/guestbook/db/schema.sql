CREATE TABLE entry (
	id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	author  text NOT NULL,
	message text NOT NULL,
	written timestamptz NOT NULL DEFAULT now()
);
