"""SQLite connections: a dialect, pragmas, when transactions begin, and a check of the file."""

import logging
import sqlite3
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event, text
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteExecutionContext
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, Pool

from app.core.sqlite_driver import SQLiteConnection

logger = logging.getLogger(__name__)

Pragmas = Mapping[str, str | int]

# Write-ahead logging lets readers continue during a write; the log is truncated to 64 MiB.
WAL: Pragmas = {"journal_mode": "WAL", "journal_size_limit": 64 * 2**20}


def create_sqlite_engines(
    url: URL, synchronous: str, options: Mapping[str, Any]
) -> tuple[AsyncEngine, AsyncEngine]:
    """An engine that can only read, and one with a single connection that can write."""
    file = DatabaseFile(Path(url.database or "").resolve())
    fits = _driver_fits()
    driver = "sqlite+loop" if fits else "sqlite+aiosqlite"
    address = url.set(drivername=driver, database=file.path.as_uri())
    # mode=rw opens an existing file and never creates one.
    address = address.update_query_dict({"uri": "true", "mode": "rw"})
    pragmas: Pragmas = {**WAL, "foreign_keys": "ON", "synchronous": synchronous}

    def create(begin: str, pragmas: Pragmas, *, read_only: bool, **pool: int) -> AsyncEngine:
        engine = create_async_engine(
            address,
            connect_args={"read_only": read_only} if fits else {},
            **options,
            **pool,
        )
        file.guard(engine.sync_engine)
        configure_sqlite_begin(engine.sync_engine, begin, pragmas)
        return engine

    reading = create("BEGIN", {**pragmas, "query_only": "ON"}, read_only=True)
    writing = create("BEGIN IMMEDIATE", pragmas, read_only=False, pool_size=1, max_overflow=0)
    return reading, writing


@cache
def _driver_fits() -> bool:
    """Whether this version of SQLAlchemy can use the driver. If not, aiosqlite takes its place."""
    trial = _try_driver()
    try:
        # It waits for nothing, so it needs no event loop.
        trial.send(None)
        reason = "it waits"
    except StopIteration:
        return True
    except Exception as error:
        # A new version may fail in any way.
        reason = repr(error)
    trial.close()
    message = "SQLAlchemy %s does not fit app/core/sqlite_driver.py (%s): using aiosqlite, slower"
    logger.warning(message, sqlalchemy.__version__, reason)
    return False


async def _try_driver() -> None:
    engine = create_async_engine("sqlite+loop://", connect_args={"read_only": True})
    connection = await engine.connect()
    try:
        (await connection.execute(text("SELECT 1"))).one()
    finally:
        # Closes it without its cursors, which may not work.
        await connection.invalidate()


def configure_sqlite_begin(engine: Engine, begin: str, pragmas: Pragmas) -> None:
    """Let SQLAlchemy begin SQLite's transactions with this statement.

    By default the driver begins them late and deferred: two writers that read first lose an
    update without an error, and DDL is committed statement by statement.
    """
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def configure_connection(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for name, value in pragmas.items():
            cursor.execute(f"PRAGMA {name}={value}")
            if name == "journal_mode" and (answer := cursor.fetchone()) != ("wal",):
                raise sqlite3.OperationalError(f"SQLite answered {answer} to journal_mode=WAL")
        cursor.close()

    # The app's dialect begins them itself.
    if not isinstance(engine.dialect, Dialect):
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))


class DatabaseFile:
    """The file that the app opened first. If it is moved or replaced, no transaction begins.

    Open connections would continue in a file without a name, and lose every commit with it. A new
    connection would replay the write-ahead log of the old file into the new one. So the file is
    also checked before it is opened, until the old file is back or the app restarts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity: tuple[int, int] | None = None

    def guard(self, engine: Engine) -> None:
        event.listen(engine, "do_connect", lambda *_: self._check())
        event.listen(engine, "begin", self._check_before_beginning)

    def _check_before_beginning(self, _: Connection) -> None:
        try:
            self._check()
        except sqlite3.OperationalError as error:
            raise OperationalError("BEGIN", None, error) from None

    def _check(self) -> None:
        try:
            status = self.path.stat()
        except OSError as error:
            # SQLite's own message does not name the file.
            reason = f"cannot be opened: {error.strerror}"
            if isinstance(error, FileNotFoundError):
                reason = "does not exist"
                if self._identity is None:
                    reason += ": `alembic upgrade head` creates one, `db restore` restores a backup"
            raise sqlite3.OperationalError(f"{self.path} {reason}") from None
        identity = status.st_dev, status.st_ino
        self._identity = self._identity or identity
        if self._identity != identity:
            raise sqlite3.OperationalError(
                f"{self.path} was replaced while the app was running: stop the app, make sure that "
                "the -wal and -shm files next to it belong to it or are gone, and start it again"
            )


class _StreamingCursor(sqlite3.Cursor):
    """For `session.stream(...)`: fetches rows when they are asked for, in the thread."""

    def __init__(self, connection: SQLiteConnection) -> None:
        super().__init__(connection)
        self._in_thread = connection.run_in_thread
        self._run_patiently = connection.run_patiently

    def execute(self, statement: str, parameters: Any = ()) -> Self:
        self._run_patiently(partial(super().execute, statement, parameters))
        return self

    def fetchone(self) -> Any:
        return self._in_thread(super().fetchone)

    def fetchmany(self, size: int | None = None) -> Any:
        return self._in_thread(partial(super().fetchmany, size or self.arraysize))

    def fetchall(self) -> Any:
        return self._in_thread(super().fetchall)

    def close(self) -> None:
        self._in_thread(super().close)


class _ExecutionContext(SQLiteExecutionContext):
    def create_server_side_cursor(self) -> Any:
        return self._dbapi_connection.cursor(_StreamingCursor)


class Dialect(SQLiteDialect_pysqlite):
    """SQLAlchemy's own dialect for `sqlite3`, with connections for an event loop."""

    driver = "loop"
    is_async = True
    has_terminate = True
    supports_statement_cache = True
    supports_server_side_cursors = True
    execution_ctx_cls = _ExecutionContext

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        return AsyncAdaptedQueuePool

    def connect(self, *arguments: Any, **options: Any) -> Any:
        return SQLiteConnection(*arguments, **options)

    def get_driver_connection(self, connection: Any) -> Any:
        return connection

    def do_begin(self, dbapi_connection: Any) -> None:
        dbapi_connection.begin()

    def do_terminate(self, dbapi_connection: Any) -> None:
        dbapi_connection.close(waits=False)


registry.register("sqlite.loop", __name__, Dialect.__name__)
