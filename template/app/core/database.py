"""The database of a running app: sessions for reading and for writing."""

import sqlite3
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy import URL, Engine, ExceptionContext, Table, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.postgresql import SESSION_OPTIONS, Standby, create_postgresql_engine
from app.core.settings import PROJECT_FOLDER, CoreSettings
from app.core.sqlite import create_sqlite_engines

_ENGINE_OPTIONS: dict[str, Any] = {
    # Seconds. A request that gets no connection in this time is answered with 503.
    "pool_timeout": 10,
    # Errors are logged; values, such as the hash of a password, are not.
    "hide_parameters": True,
}

# A request with one of these methods changes nothing (RFC 9110, section 9.2.1).
READ_METHODS = {"GET", "HEAD", "OPTIONS"}

# The file, the disk or another writer is in the way (sqlite.org/rescode.html).
_SQLITE_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}
# A value that is taken, or a reference to a missing row. A NOT NULL or CHECK violation is a bug
# instead: the schema of the request should have rejected the value.
_SQLITE_CONFLICTS = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY,
}
# PostgreSQL, appendix A: restrict, foreign_key, unique and exclusion violation.
_POSTGRESQL_CONFLICTS = {"23001", "23503", "23505", "23P01"}
# read_only_sql_transaction: only a standby is left.
_POSTGRESQL_TRANSIENT = {"25006"}


@event.listens_for(Engine, "handle_error")
def _hide_values(context: ExceptionContext) -> None:
    """Remove the values of rows from an error of any engine, before it is raised.

    Otherwise they would reach logs, tracebacks and the output of commands.
    """
    error, wrapper = context.original_exception, context.sqlalchemy_exception
    message = _without_values(error)
    if message == str(error):
        return
    error.args = (message,)
    if wrapper is not None:
        wrapper.args = (f"({type(error).__module__}.{type(error).__name__}) {message}",)


def _without_values(error: BaseException) -> str:
    if isinstance(error, sqlite3.Error):
        # "Could not decode to UTF-8 column 'name' with text '...'"
        return str(error).partition(" with text ")[0]
    # The DETAIL of PostgreSQL quotes the rejected row, and the driver adds it to its message.
    diagnosis = getattr(error, "diag", None)
    if diagnosis is None or diagnosis.message_primary is None:
        return str(error)
    # A data exception (class 22) quotes the value in its first line, too.
    is_about_data = (diagnosis.sqlstate or "").startswith("22")
    return type(error).__name__ if is_about_data else str(diagnosis.message_primary)


class Database:
    """Sessions for reading and for writing: `async with Database(settings) as database`.

    SQLite allows one writer at a time. So each worker has one connection for writing, for which
    its requests queue, and others that can only read. PostgreSQL uses one pool for both, and may
    have a standby for `replica_session`.
    """

    def __init__(self, settings: CoreSettings) -> None:
        url = parse_url(settings.database_url)
        seconds = settings.database_timeout_seconds
        if url.get_backend_name() == "sqlite":
            reading, writing = create_sqlite_engines(
                url, settings.sqlite_synchronous, _ENGINE_OPTIONS
            )
            engines = {"reading": reading, "writing": writing}
        else:
            writing = create_postgresql_engine(url, seconds, _ENGINE_OPTIONS)
            reading = writing.execution_options(read_only=True)
            engines = {"all": writing}
        self._standby: Standby | None = None
        if settings.database_replica_url:
            replica_url = parse_url(settings.database_replica_url)
            self._standby = Standby(replica_url, seconds, _ENGINE_OPTIONS)
            engines["standby"] = self._standby.engine
        self._engines = engines
        # `begin()` ends a read with a commit: a rollback makes psycopg forget prepared statements.
        self.readers = async_sessionmaker(reading, **SESSION_OPTIONS)
        self.writers = async_sessionmaker(writing, **SESSION_OPTIONS)

    def replica_session(self, primary: AsyncSession) -> AbstractAsyncContextManager[AsyncSession]:
        """For long reads: a session on the standby, if it has all that is committed by now.

        Otherwise `primary`, a session of `readers`.
        """
        return self._standby.session(primary) if self._standby else nullcontext(primary)

    @property
    def engines(self) -> Mapping[str, Engine]:
        """By the names of their pools."""
        return {name: engine.sync_engine for name, engine in self._engines.items()}

    async def probe(self) -> None:
        """Raise RuntimeError if the database cannot be opened. Missing migrations are fine."""
        try:
            async with self.readers.begin() as session:
                await session.execute(text("SELECT 1"))
        except DBAPIError as error:
            raise RuntimeError(f"Cannot open the database: {error.orig}") from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for engine in self._engines.values():
            await engine.dispose()


# Asynchronous, though it waits for nothing: FastAPI runs every other function in a thread.
async def get_database(connection: HTTPConnection) -> Database:
    return cast(Database, connection.app.state.database)


# To read before slow work, use `async with database.readers.begin()`: it holds no lock during
# the work (hashing, a call to another service).
DatabaseDep = Annotated[Database, Depends(get_database)]


def parse_url(url: str, folder: Path = PROJECT_FOLDER) -> URL:
    """A URL with the absolute path of a SQLite file, or with the driver for PostgreSQL."""
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return parsed.set(database=str((folder / parsed.database).resolve()))
    return parsed


def synchronous_url(url: str) -> URL:
    """The same database through a driver without an event loop."""
    parsed = parse_url(url)
    return parsed.set(drivername="sqlite") if parsed.get_backend_name() == "sqlite" else parsed


def insert_for(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT with the `on_conflict_...` methods of either database."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def locks_rows(session: AsyncSession) -> bool:
    """False on SQLite, where a transaction that writes already has the only lock."""
    return session.get_bind().dialect.name != "sqlite"


def is_transient_error(error: DBAPIError, *, read_only: bool) -> bool:
    """Whether the same statement may succeed later. `read_only` is for a reader's connection."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is None:
        sqlstate = getattr(error.orig, "sqlstate", None)
        # From a reader, that code means a write in a GET request: a bug.
        is_standby = sqlstate in _POSTGRESQL_TRANSIENT and not read_only
        return isinstance(error, OperationalError) or is_standby
    if read_only and code == sqlite3.SQLITE_READONLY:
        # The same bug.
        return False
    # The low byte of an extended result code is the primary code.
    return code & 0xFF in _SQLITE_TRANSIENT


def is_integrity_error(error: DBAPIError) -> bool:
    """Whether the row conflicts with others: a value is taken, or a reference has no target."""
    if getattr(error.orig, "sqlite_errorcode", None) in _SQLITE_CONFLICTS:
        return True
    # ON DELETE RESTRICT has the error code of a trigger.
    if str(error.orig) == "FOREIGN KEY constraint failed":
        return True
    return getattr(error.orig, "sqlstate", None) in _POSTGRESQL_CONFLICTS
