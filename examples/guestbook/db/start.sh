#!/bin/sh
# Makes the database at the first start, then becomes PostgreSQL. The data folder appears under its name only when it is
# complete, so a start that was killed half-way is simply begun again.
set -eu

if [ ! -d "$PGDATA" ]; then
	new="$PGDATA.new"
	rm -rf "$new"
	initdb -D "$new" -E UTF8 --locale=C.UTF-8 --auth-local=peer --auth-host=scram-sha-256 \
		--pwfile="$POSTGRES_PASSWORD_FILE" >/dev/null
	echo 'host all all all scram-sha-256' >>"$new/pg_hba.conf"
	pg_ctl -D "$new" -o "-c listen_addresses=''" -w -s start
	createdb guestbook
	psql -q -v ON_ERROR_STOP=1 -d guestbook -f /etc/guestbook/schema.sql
	pg_ctl -D "$new" -m fast -w -s stop
	mv "$new" "$PGDATA"
fi

exec postgres -c listen_addresses='*'
