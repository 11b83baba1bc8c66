CREATE TABLE note (
	id   INTEGER PRIMARY KEY,
	text TEXT NOT NULL
);
INSERT INTO note (text) VALUES ('made by the first migration');
