"""The migrations that the code has, and those that the database has.

Alembic knows both, but importing it would cost every worker start-up time and memory.
"""

import ast
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

VERSIONS = Path(__file__).parents[2] / "alembic" / "versions"


@dataclass(frozen=True)
class MigrationState:
    """Revisions: those in `alembic/versions`, their heads, and what the database says of itself."""

    known: frozenset[str]
    code: frozenset[str]
    database: frozenset[str]

    @property
    def at_head(self) -> bool:
        return self.code == self.database != frozenset()

    def __str__(self) -> str:
        database = ", ".join(sorted(self.database)) or "no revision"
        code = ", ".join(sorted(self.code)) or "no revision"
        return f"database at {database}, code at {code}{self._advice()}"

    def _advice(self) -> str:
        if self.at_head:
            return ""
        if len(self.code) > 1:
            return ": two lines of migrations; join them with `alembic merge heads -m merge`"
        if self.database <= self.known:
            return ": the database is behind; run `alembic upgrade head`"
        return ": the database is ahead of this code, or of another project"


async def migration_state(session: AsyncSession) -> MigrationState:
    found = await session.scalars(text("SELECT version_num FROM alembic_version"))
    return MigrationState(*code_revisions(VERSIONS), frozenset(found))


def code_revisions(versions: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Every revision in this folder, and the heads: those that no other one builds on."""
    files = sorted(versions.glob("[!._]*.py"))
    return parse_revisions(tuple((file, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=1)
def parse_revisions(
    files: tuple[tuple[Path, int], ...],
) -> tuple[frozenset[str], frozenset[str]]:
    """Read anew when a file came, went or changed: in development, that happens beside the app."""
    revisions: set[str] = set()
    parents: set[str] = set()
    for file, _ in files:
        values = assignments(file)
        revisions |= names(values.get("revision"))
        parents |= names(values.get("down_revision")) | names(values.get("depends_on"))
    return frozenset(revisions), frozenset(revisions - parents)


def names(value: object) -> set[str]:
    """Revisions are given as one name, several, or None."""
    if isinstance(value, str):
        return {value}
    return set(value) if isinstance(value, tuple | list) else set()


def assignments(file: Path) -> dict[str, object]:
    """What a migration says of itself and of what it builds on."""
    values: dict[str, object] = {}
    for node in ast.parse(file.read_text("utf-8")).body:
        match node:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(
                ast.Name(name), _, ast.expr() as value
            ):
                if name in {"revision", "down_revision", "depends_on"}:
                    values[name] = ast.literal_eval(value)
    return values
