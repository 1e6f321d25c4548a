"""How a connection to the database is opened, for serving and for migrating."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

Pragmas = Mapping[str, str | int]

# Write-ahead logging lets readers go on beside the one writer; the log is cut back to 64 MiB.
WAL: Pragmas = {"journal_mode": "WAL", "journal_size_limit": 64 * 2**20}


def parse_url(url: str) -> URL:
    """A URL with a driver that is installed: psycopg for a plain postgresql://."""
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def synchronous_url(url: str) -> URL:
    """The same database through a driver without an event loop."""
    parsed = parse_url(url)
    return parsed.set(drivername="sqlite") if parsed.get_backend_name() == "sqlite" else parsed


def existing_file_url(url: URL, file: Path) -> URL:
    """The asynchronous SQLite URL that opens a file if it exists, and creates none."""
    return url.set(drivername="sqlite+aiosqlite", database=file.as_uri()).update_query_dict(
        {"uri": "true", "mode": "rw"}
    )


def take_over_transactions(engine: Engine, begin: str, pragmas: Pragmas) -> None:
    """Have SQLAlchemy begin SQLite's transactions, with the statement given.

    Left to itself the driver begins late and deferred: two writers that read first lose an
    update without an error, and DDL is committed statement by statement.
    """
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def set_up_connection(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for name, value in pragmas.items():
            cursor.execute(f"PRAGMA {name}={value}")
            if name == "journal_mode" and (answer := cursor.fetchone()) != ("wal",):
                raise sqlite3.OperationalError(f"SQLite answered {answer} to journal_mode=WAL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def refuse_another_file(engine: Engine, file: Path) -> None:
    """Let no transaction begin once the database file is gone, or another than at first.

    Open connections would go on with a file that has lost its name, and every commit with it.
    Reconnecting is no way out: closing such a connection deletes the write-ahead log beside
    the new file. So this lasts until the old file is back, or the app is started again.
    """
    first: tuple[int, int] | None = None

    @event.listens_for(engine, "do_connect")
    def name_what_is_missing(*_: object) -> None:
        if not file.exists():
            # SQLite itself says "unable to open database file", whichever it is.
            raise sqlite3.OperationalError(f"{file} does not exist")

    @event.listens_for(engine, "begin")
    def compare(_: Connection) -> None:
        nonlocal first
        try:
            status = file.stat()
        except OSError:
            reason = f"{file} is gone"
        else:
            first = first or (status.st_dev, status.st_ino)
            if first == (status.st_dev, status.st_ino):
                return
            reason = f"{file} was replaced: start the app again"
        raise OperationalError("BEGIN", None, sqlite3.OperationalError(reason))
