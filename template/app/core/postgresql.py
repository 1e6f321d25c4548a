"""PostgreSQL connections: directly or through a pooler, and a standby for reads."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from typing import Any

from sqlalchemy import URL, Connection, Engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

logger = logging.getLogger(__name__)

# Of one worker to one server. Idle connections above the first number are closed.
_POOL_SIZE = 5
MAX_CONNECTIONS = 15

# A closed session stays closed: used again, it would keep a connection.
SESSION_OPTIONS: dict[str, Any] = {"expire_on_commit": False, "close_resets_only": False}

# A transaction that waited for a row must see its new values. It waits for a lock as long as with
# SQLite. A session's setting would not reach the server through a pooler, so it is the transaction's.
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
_SET = "SET LOCAL lock_timeout = '5s'"
_SET_READ_ONLY = "SET TRANSACTION READ ONLY"

# Every commit that was acknowledged before this query is at or before this position.
_PRIMARY_POSITION = text("SELECT CAST(pg_current_wal_flush_lsn() AS text)")
_HAS_REPLAYED = text(
    "SELECT CASE WHEN pg_is_in_recovery()"
    " THEN pg_last_wal_replay_lsn() >= CAST(:position AS pg_lsn) END"
)
# A standby is usually milliseconds behind. After these waits, the primary is asked instead.
_PAUSES = (0.0, 0.005, 0.02, 0.05)
# How long to wait for a standby, and how long not to ask it again after it did not answer.
_STANDBY_PATIENCE_SECONDS = 3
_STANDBY_RETRY_SECONDS = 15


def create_postgresql_engine(url: URL, seconds: float, options: dict[str, Any]) -> AsyncEngine:
    """With the execution option `read_only`, no transaction can write."""
    engine = create_async_engine(
        url.set(query={"connect_timeout": "5", **url.query}),
        pool_pre_ping=True,
        pool_size=_POOL_SIZE,
        max_overflow=MAX_CONNECTIONS - _POOL_SIZE,
        connect_args={"autocommit": True, "async_creator_fn": partial(_connect, seconds)},
        **options,
    )
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    """Begin a transaction in one round trip, unless the code asked for another isolation level."""
    options = connection.get_execution_options()
    level = options.get("isolation_level")
    read_only = options.get("read_only")
    if level is None:
        mode = " READ ONLY" if read_only else ""
        connection.exec_driver_sql(f"{_BEGIN}{mode}; {_SET}")
    elif level != "AUTOCOMMIT":
        # The driver begins it.
        connection.exec_driver_sql(f"{_SET_READ_ONLY}; {_SET}" if read_only else _SET)
    elif read_only:
        raise InvalidRequestError("AUTOCOMMIT can write, so it needs a session of `writers`.")


async def _connect(seconds: float, *arguments: Any, **options: Any) -> Any:
    """A connection of psycopg that is closed if a command gets no answer in this time.

    A server that is stopped or unreachable keeps the connection open, and would be awaited forever.
    """
    psycopg: Any = import_module("psycopg")
    connection = await psycopg.AsyncConnection.connect(*arguments, **options)
    # Every command waits in this method. There is no option for how long.
    wait = connection.wait

    async def wait_in_time(*arguments: Any, **options: Any) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await wait(*arguments, **options)
        except TimeoutError:
            connection.pgconn.finish()
            raise psycopg.OperationalError(f"no answer in {seconds} seconds") from None

    connection.wait = wait_in_time
    return connection


@event.listens_for(Engine, "connect")
def _prepare_nothing_in_a_pooler(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """The next transaction may get another server process, without what this one has prepared.

    Directly connected, the driver prepares frequent statements, which halves the server's work.
    """
    driver: Any = getattr(connection, "driver_connection", connection)
    if not hasattr(driver, "prepare_threshold"):
        return
    cursor = connection.cursor()
    cursor.execute("SELECT pg_backend_pid()")
    # A pooler makes up the number that it gives to the client.
    if cursor.fetchone() != (driver.info.backend_pid,):
        driver.prepare_threshold = None
    cursor.close()
    connection.rollback()


class Standby:
    """Sessions on a streaming standby, for reads that never miss an acknowledged commit."""

    def __init__(self, url: URL, seconds: float, options: dict[str, Any]) -> None:
        # While all its connections are in use, the primary must not get its work, too.
        options = {**options, "pool_timeout": 1}
        self.engine = create_postgresql_engine(url, seconds, options)
        self._is_down = False
        self._retry_at = 0.0

    @asynccontextmanager
    async def session(self, primary: AsyncSession) -> AsyncIterator[AsyncSession]:
        """A session on the standby; `primary` if it is down, or behind for longer than a moment."""
        async with AsyncSession(self.engine, **SESSION_OPTIONS) as session:
            if not await self._is_current(session, primary):
                yield primary
                return
            yield session
            # After a rollback, psycopg would have to prepare its statements again.
            await session.commit()

    async def _is_current(self, session: AsyncSession, primary: AsyncSession) -> bool:
        if self._is_down and time.monotonic() < self._retry_at:
            return False
        # While it is down, only one request waits for it.
        self._retry_at = time.monotonic() + _STANDBY_RETRY_SECONDS
        position = await primary.scalar(_PRIMARY_POSITION)
        try:
            async with asyncio.timeout(_STANDBY_PATIENCE_SECONDS):
                return await self._catches_up(session, position)
        except (DBAPIError, TimeoutError) as error:
            self._report(getattr(error, "orig", None) or "no answer")
        return False

    async def _catches_up(self, session: AsyncSession, position: str) -> bool:
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            has_replayed = await session.scalar(_HAS_REPLAYED, {"position": position})
            if has_replayed is None:
                self._report("it is not a standby")
                return False
            self._report(None)
            if has_replayed:
                return True
        return False

    def _report(self, reason: object) -> None:
        """Log a change, once. Reading continues on the primary."""
        was_down, self._is_down = self._is_down, reason is not None
        if self._is_down and not was_down:
            logger.warning("Reading from the primary, not from the standby: %s", reason)
        elif was_down and not self._is_down:
            logger.warning("Reading from the standby again")
