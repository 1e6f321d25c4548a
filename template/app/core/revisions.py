"""Which migrations the code and the database have, and whether the two fit together."""

import asyncio
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.settings import PROJECT_FOLDER

_ALEMBIC = PROJECT_FOLDER / "alembic"


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
