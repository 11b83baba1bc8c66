"""Applies the migrations that the database has not had, in order, each in a transaction of its own.

usage: migrate.py DATABASE FOLDER
"""

import pathlib
import sqlite3
import sys


def main(database: str, folder: str) -> None:
    # autocommit: transactions begin and end where the code says so
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY)")
    applied = {name for (name,) in db.execute("SELECT name FROM migration")}
    for path in sorted(pathlib.Path(folder).glob("*.sql")):
        if path.name in applied:
            continue
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in path.read_text().split(";"):
                db.execute(statement)
            db.execute("INSERT INTO migration VALUES (?)", (path.name,))
        except sqlite3.Error as err:
            db.execute("ROLLBACK")
            sys.exit(f"{path.name}: {err}")
        db.execute("COMMIT")
        print("applied", path.name)
    print("the schema is up to date")


main(*sys.argv[1:])
