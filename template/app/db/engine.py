"""How a connection to the database is opened, for serving and for migrating."""

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, Connection, Engine, event, make_url
from sqlalchemy.engine.interfaces import AdaptedConnection, DBAPIConnection
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

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
        driver = connection.connection.dbapi_connection
        if not isinstance(driver, AdaptedConnection):
            connection.exec_driver_sql(begin)
            return
        # Through SQLAlchemy's cursor, this would be three turns of the driver's thread.
        try:
            driver.run_async(lambda aiosqlite: aiosqlite.execute(begin))
        except sqlite3.OperationalError as error:
            raise OperationalError(begin, None, error) from None
        except asyncio.CancelledError:
            # The driver's thread still waits for the lock, and would keep it for nobody.
            connection.invalidate()
            raise


def reset_what_is_open(engine: Engine) -> None:
    """Roll back when a connection returns to the pool, but only a transaction that is still open.

    The pool itself would send a ROLLBACK each time, also after a commit: one more turn of the
    driver's thread. For an engine with `pool_reset_on_return=None`.
    """

    @event.listens_for(engine, "reset")
    def reset(connection: DBAPIConnection, _: ConnectionPoolEntry, state: PoolResetState) -> None:
        if not state.asyncio_safe or not isinstance(connection, AdaptedConnection):
            return
        if connection.driver_connection.in_transaction:
            # As the pool itself does it.
            cast(Any, engine.dialect).do_rollback(connection)


class DatabaseFile:
    """The file that an app opened first: no transaction begins once it is gone, or another one.

    Open connections would go on with a file that has lost its name, and every commit with it;
    a new one would replay the write-ahead log of the old file into the new. So it is checked
    before a file is opened, too, and lasts until the old file is back or the app starts again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first: tuple[int, int] | None = None

    def guard(self, engine: Engine) -> None:
        event.listen(engine, "do_connect", self._check_before_opening)
        event.listen(engine, "begin", self._check_before_beginning)

    def _check_before_opening(self, *_: object) -> None:
        self._check()

    def _check_before_beginning(self, _: Connection) -> None:
        try:
            self._check()
        except sqlite3.OperationalError as error:
            raise OperationalError("BEGIN", None, error) from None

    def _check(self) -> None:
        try:
            status = self.path.stat()
        except OSError:
            # SQLite itself says "unable to open database file", and not which.
            raise sqlite3.OperationalError(f"{self.path} does not exist") from None
        self.first = self.first or (status.st_dev, status.st_ino)
        if self.first != (status.st_dev, status.st_ino):
            raise sqlite3.OperationalError(
                f"{self.path} was replaced under the app: stop it, see to it that the -wal and "
                "-shm beside the file are its own or gone, and start it again"
            )
