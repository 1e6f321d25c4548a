"""Health checks: a process manager calls `live`, a load balancer calls `ready`."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import Literal

from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Scope

from app.core.database import Database, DatabaseDep
from app.core.errors import ServiceUnavailable
from app.core.settings import PROJECT_FOLDER, CoreSettings

logger = logging.getLogger(__name__)

# A load balancer asks every few seconds.
READY_SECONDS = 5.0

_PATHS = {"/health/live", "/health/ready"}

_abandoned: set[asyncio.Task["MigrationState"]] = set()
_ALEMBIC = PROJECT_FOLDER / "alembic"


@asynccontextmanager
async def _drain_on_sigterm(app: FastAPI) -> AsyncIterator[None]:
    """On SIGTERM, keep serving for DRAIN_SECONDS, not ready, before the server gets the signal."""
    app.state.is_draining = False
    app.state.readiness_check = None
    settings: CoreSettings = app.state.settings
    end = signal.getsignal(signal.SIGTERM)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not settings.drain_seconds or not in_main_thread or not callable(end):
        yield
        return
    loop = asyncio.get_running_loop()

    def drain(number: int, _: FrameType | None) -> None:
        # A process manager may send it to a worker, whose parent sends it again.
        if not app.state.is_draining:
            app.state.is_draining = True
            loop.call_soon_threadsafe(loop.call_later, settings.drain_seconds, end, number, None)

    signal.signal(signal.SIGTERM, drain)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, end)


router = APIRouter(prefix="/health", tags=["health"], lifespan=_drain_on_sigterm)


def is_health_check(scope: Scope) -> bool:
    path = str(scope.get("path", ""))
    return path.removeprefix(scope.get("root_path", "")) in _PATHS


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@router.get("/live")
async def read_liveness() -> Health:
    """The process answers. The database is not checked, since a restart would not fix it."""
    return Health()


@router.get(
    "/ready", responses={HTTPStatus.SERVICE_UNAVAILABLE: {"description": "Not ready for requests"}}
)
async def read_readiness(request: Request, database: DatabaseDep) -> Health:
    """The database answers in a few seconds, and this release works with its migrations."""
    if request.app.state.is_draining:
        logger.info("Not ready: stopping after SIGTERM")
        raise ServiceUnavailable("The app is stopping.")
    # Shielded: a client that leaves must not end the check of the others.
    if problem := await asyncio.shield(_shared_check(request.app, database)):
        raise ServiceUnavailable(problem)
    return Health()


def _shared_check(app: FastAPI, database: Database) -> asyncio.Task[str | None]:
    """The check that is running, or a new one.

    Anyone may ask, as often as they like. If each request started a check, all of them would wait
    for connections, and the load balancer would get no answer in time.
    """
    check: asyncio.Task[str | None] | None = app.state.readiness_check
    # A server has one event loop, but tests may have several.
    if check is None or check.done() or check.get_loop() is not asyncio.get_running_loop():
        check = app.state.readiness_check = asyncio.create_task(_find_problem(database))
    return check


async def _find_problem(database: Database) -> str | None:
    """Why the app is not ready, for the client. The log says more."""
    # Not `wait_for`: it would also wait for the connection to close, which needs the database.
    check = asyncio.create_task(_read_state(database))
    await asyncio.wait({check}, timeout=READY_SECONDS)
    if not check.done():
        _abandon(check)
        logger.error("Not ready: no answer from the database in %s seconds", READY_SECONDS)
        return "The database does not answer."
    try:
        state = check.result()
    except SQLAlchemyError as error:
        logger.error("Not ready: %s", error)
        return "The database does not answer."
    if not state.is_ready:
        logger.error("Not ready: %s", state)
        return "The database is not at the revision of this release."
    return None


async def _read_state(database: Database) -> "MigrationState":
    async with database.readers.begin() as session:
        return await migration_state(session)


def _abandon(check: asyncio.Task["MigrationState"]) -> None:
    """Cancel the check, and hold it until it ends: the event loop has only a weak reference."""
    check.cancel()
    _abandoned.add(check)
    check.add_done_callback(_abandoned.discard)
    # Otherwise asyncio would log its error, too.
    check.add_done_callback(lambda done: done.cancelled() or done.exception())


@dataclass(frozen=True)
class MigrationState:
    """The revisions in `alembic/versions`, their heads, and those of the database."""

    known: frozenset[str]
    heads: frozenset[str]
    database: frozenset[str]
    # Those whose code works with the database: app/core/compatibility.py.
    compatible: frozenset[str] = frozenset()

    @property
    def is_ready(self) -> bool:
        return self.at_head or self.is_ahead_and_compatible

    @property
    def at_head(self) -> bool:
        return self.heads == self.database != frozenset()

    @property
    def is_ahead_and_compatible(self) -> bool:
        """Whether newer code has migrated the database, and this code still works with it.

        A list without the database's own revisions is older than these, and says nothing.
        """
        is_ahead = not self.database <= self.known
        return is_ahead and self.heads | self.database <= self.compatible

    def __str__(self) -> str:
        database = ", ".join(sorted(self.database)) or "no revision"
        code = ", ".join(sorted(self.heads)) or "no revision"
        return f"database at {database}, code at {code}{self._advice()}"

    def _advice(self) -> str:
        if self.at_head:
            return ""
        if len(self.heads) > 1:
            return ": two heads; join them with `alembic merge heads -m merge`"
        if self.database <= self.known:
            return ": the database is behind; run `alembic upgrade head`"
        if self.is_ahead_and_compatible:
            return ": the database is ahead of this code, which works with it"
        if self.database <= self.compatible:
            return ": the database is ahead of this code, which does not work with it"
        return ": the database is ahead of this code, or belongs to another project"


class MigrationsError(SQLAlchemyError):
    """Alembic cannot read the migrations, so the state of the database is unknown."""


async def migration_state(session: AsyncSession) -> MigrationState:
    found = await _read_revisions_of(session, "alembic_version", "version_num")
    known, heads = await asyncio.to_thread(_code_revisions)
    if found <= known:
        return MigrationState(known, heads, found)
    compatible = await _read_revisions_of(session, "alembic_compatible", "revision")
    return MigrationState(known, heads, found, compatible)


async def _read_revisions_of(session: AsyncSession, table: str, column: str) -> frozenset[str]:
    try:
        return frozenset(await session.scalars(text(f"SELECT {column} FROM {table}")))  # noqa: S608
    except DBAPIError as error:
        # The table is missing before the first migration. PostgreSQL: undefined_table.
        is_missing = str(error.orig) == f"no such table: {table}"
        if not is_missing and getattr(error.orig, "sqlstate", None) != "42P01":
            raise
        return frozenset()


def _code_revisions() -> tuple[frozenset[str], frozenset[str]]:
    """Every revision in `alembic/versions`, and the heads."""
    files = sorted((_ALEMBIC / "versions").glob("[!._]*.py"))
    return _read_revisions(tuple((file, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=1)
def _read_revisions(_: tuple[tuple[Path, int], ...]) -> tuple[frozenset[str], frozenset[str]]:
    """Read again when a file appears, changes or goes, as happens in development."""
    # Imported here, since it takes 0.1 s and no other request needs it.
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    try:
        script = ScriptDirectory(str(_ALEMBIC))
        known = frozenset(revision.revision for revision in script.walk_revisions())
        return known, frozenset(script.get_heads(consider_depends_on=True))
    except (CommandError, KeyError, SyntaxError) as error:
        raise MigrationsError(f"alembic/versions is invalid: {error}") from None
