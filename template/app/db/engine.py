"""How a connection to the database is opened, for serving and for migrating."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
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


def serving_url(url: str) -> URL:
    """The asynchronous form of a URL; SQLite's opens a file that exists and creates none."""
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return parsed
    file = Path(parsed.database or "").absolute().as_uri()
    return parsed.set(drivername="sqlite+aiosqlite", database=file).update_query_dict(
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
