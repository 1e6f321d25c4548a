"""The database of a running app. A request is one transaction, and `get_session` commits it.

What opens transactions of its own has a reason: hashing must hold no lock, a counted attempt must
outlast a refusal, and the check of a token reads before a write begins.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fastapi.requests import HTTPConnection
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from app.db.engine import (
    WAL,
    DatabaseFile,
    Pragmas,
    existing_file_url,
    parse_url,
    reset_what_is_open,
    take_over_transactions,
)
from app.settings import Settings

BUSY_TIMEOUT_MILLISECONDS = 5_000
ENGINE_OPTIONS: dict[str, Any] = {
    # A request that gets no connection in so many seconds is answered 503.
    "pool_timeout": 10,
    # Errors are logged; values, such as the hash of a password, are not.
    "hide_parameters": True,
}

# As on SQLite: who waits in vain for the server, or for a row, is told to come back.
POSTGRESQL_ARGUMENTS = {"connect_timeout": "5", "options": "-c lock_timeout=5s"}


class Database:
    """Sessions for reading and for writing: `async with Database(settings) as database`.

    SQLite has one writer at a time. Each worker therefore keeps one connection for writing, for
    which its requests queue, and others that can only read. PostgreSQL needs no such difference.
    """

    def __init__(self, settings: Settings) -> None:
        url = parse_url(settings.database_url)
        if url.get_backend_name() == "sqlite":
            self._engines = sqlite_engines(url, settings.sqlite_synchronous)
        else:
            engine = create_async_engine(
                url,
                pool_pre_ping=True,
                # A transaction that waited for a row has to see what it waited for.
                isolation_level="READ COMMITTED",
                connect_args=POSTGRESQL_ARGUMENTS | dict(url.query),
                **ENGINE_OPTIONS,
            )
            self._engines = engine, engine
        reading, writing = self._engines
        self.readers = async_sessionmaker(reading, expire_on_commit=False)
        self.writers = async_sessionmaker(writing, expire_on_commit=False)

    async def probe(self) -> None:
        """Raise if the database can't be opened at all; it may still lack migrations."""
        try:
            async with self.readers() as session:
                await session.execute(text("SELECT 1"))
        except DBAPIError as error:
            reason = (
                f"The database can't be opened: {error.orig}. `alembic upgrade head` makes one."
            )
            raise RuntimeError(reason) from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for engine in self._engines:
            await engine.dispose()


def sqlite_engines(url: URL, synchronous: str) -> tuple[AsyncEngine, AsyncEngine]:
    """One engine that can only read, and one of a single connection that can write."""
    file = DatabaseFile(Path(url.database or "").resolve())
    pragmas: Pragmas = {
        "busy_timeout": BUSY_TIMEOUT_MILLISECONDS,
        **WAL,
        "foreign_keys": "ON",
        "synchronous": synchronous,
    }

    def engine(begin: str, pragmas: Pragmas, **pool: int) -> AsyncEngine:
        address = existing_file_url(url, file.path)
        engine = create_async_engine(address, pool_reset_on_return=None, **ENGINE_OPTIONS, **pool)
        file.guard(engine.sync_engine)
        take_over_transactions(engine.sync_engine, begin, pragmas)
        reset_what_is_open(engine.sync_engine)
        return engine

    reading = engine("BEGIN", {**pragmas, "query_only": "ON"})
    writing = engine("BEGIN IMMEDIATE", pragmas, pool_size=1, max_overflow=0)
    return reading, writing


async def get_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    """The request's one transaction: committed on success, rolled back on any exception.

    It begins with the first statement, so work that comes before that holds no lock.
    """
    database: Database = connection.app.state.database
    only_reads = connection.scope.get("method") == "GET"
    sessions = database.readers if only_reads else database.writers
    async with sessions.begin() as session:
        yield session
