"""The migrations that the code has, and those that the database has.

Alembic knows both, but importing it would cost every worker start-up time and memory.
"""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

VERSIONS = Path("alembic/versions")


@dataclass(frozen=True)
class MigrationState:
    """Revisions: the heads of `alembic/versions`, and what the database says of itself."""

    code: frozenset[str]
    database: frozenset[str]

    @property
    def at_head(self) -> bool:
        return self.code == self.database != frozenset()

    def __str__(self) -> str:
        database = ", ".join(sorted(self.database)) or "no revision"
        code = ", ".join(sorted(self.code)) or "no revision"
        return f"database at {database}, code at {code}"


async def migration_state(session: AsyncSession) -> MigrationState:
    found = await session.scalars(text("SELECT version_num FROM alembic_version"))
    return MigrationState(code_heads(VERSIONS), frozenset(found))


@cache
def code_heads(versions: Path) -> frozenset[str]:
    """The revisions that no other one in this folder builds on."""
    revisions: set[str] = set()
    parents: set[str] = set()
    for file in versions.glob("*.py"):
        names = assignments(file)
        revisions.add(str(names["revision"]))
        match names["down_revision"]:
            case str(parent):
                parents.add(parent)
            case tuple(merged):
                parents.update(merged)
    return frozenset(revisions - parents)


def assignments(file: Path) -> dict[str, object]:
    """The values that a migration gives to `revision` and `down_revision`."""
    values: dict[str, object] = {}
    for node in ast.parse(file.read_text("utf-8")).body:
        match node:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(
                ast.Name(name), _, ast.expr() as value
            ):
                if name in {"revision", "down_revision"}:
                    values[name] = ast.literal_eval(value)
    return values
