"""Which releases of the code work with the database, so that old ones can run next to new ones.

The table `alembic_compatible` lists their revisions. A release looks there for its own, since it
lacks the files of newer ones. Each step of a migration updates the list in its transaction.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory
from alembic.util import CommandError, to_tuple
from sqlalchemy import Column, Connection, MetaData, String, Table, delete, inspect, select, text
from sqlalchemy.schema import CreateTable

from app.core.database import insert_for
from app.core.health import MigrationState
from app.core.reflection import LITERAL, normalize_sql

logger = logging.getLogger("alembic")

_COMPATIBLE = Table(
    "alembic_compatible", MetaData(), Column("revision", String(32), primary_key=True)
)


class CompatibilityRecorder:
    """Keeps the list. Without a connection, as with `--sql`, every change counts as breaking."""

    def __init__(self, script: ScriptDirectory, connection: Connection | None) -> None:
        self._script = script
        self._connection = connection
        self._schema = read_schema(connection) if connection is not None else None
        self._has_table = False

    def after_step(
        self, *, ctx: MigrationContext, step: MigrationInfo, heads: set[str], **_: Any
    ) -> None:
        """Called by Alembic after each step, inside the transaction of the migration."""
        if not self._has_table:
            ctx.execute(CreateTable(_COMPATIBLE, if_not_exists=True))
            self._has_table = True
        added = set(heads)
        if step.is_stamp:
            ctx.execute(delete(_COMPATIBLE))
        elif not step.is_upgrade:
            ctx.execute(delete(_COMPATIBLE).where(_COMPATIBLE.c.revision.in_(step.up_revision_ids)))
        elif oldest := self._compatible_since(str(step.up_revision_id)):
            compatible = self._revisions_between(oldest, str(step.up_revision_id))
            ctx.execute(delete(_COMPATIBLE).where(_COMPATIBLE.c.revision.not_in(compatible)))
            added |= compatible & {*step.source_revision_ids}
        else:
            added |= {*step.source_revision_ids}
        if added:
            rows = [{"revision": revision} for revision in sorted(added)]
            insert = insert_for(ctx.dialect.name, _COMPATIBLE).values(rows)
            ctx.execute(insert.on_conflict_do_nothing())

    def _compatible_since(self, revision: str) -> tuple[str, ...]:
        """The oldest revisions that work after this one; none if it breaks no older one."""
        before, self._schema = self._schema, None
        if self._connection is not None:
            self._schema = read_schema(self._connection)
        module = self._script.get_revision(revision).module
        if declared := getattr(module, "compatible_since", None):
            return to_tuple(declared)
        if before is None or self._schema is None:
            return (revision,)
        changes = [*find_breaking_changes(before, self._schema)]
        if changes:
            logger.info("Breaking for code before %s: %s", revision, "; ".join(changes[:3]))
        return (revision,) if changes else ()

    def _revisions_between(self, oldest: tuple[str, ...], newest: str) -> set[str]:
        """The oldest ones, and all that follow, up to the newest one."""
        line = [*self._script.iterate_revisions(newest, "base")]
        found = {*oldest}
        if unknown := found - {script.revision for script in line}:
            names = ", ".join(sorted(unknown))
            raise CommandError(f"{newest}: compatible_since names {names}, which is not before it")
        for script in reversed(line):
            if found & {*to_tuple(script.down_revision, default=())}:
                found.add(script.revision)
        return found


def is_ahead_and_compatible(connection: Connection, script: ScriptDirectory) -> bool:
    """Whether newer code has migrated the database, and this code works with it."""
    if not inspect(connection).has_table(_COMPATIBLE.name):
        return False
    versions = connection.scalars(text("SELECT version_num FROM alembic_version"))
    return MigrationState(
        known=frozenset(revision.revision for revision in script.walk_revisions()),
        heads=frozenset(script.get_heads(consider_depends_on=True)),
        database=frozenset(versions),
        compatible=frozenset(connection.scalars(select(_COMPATIBLE.c.revision))),
    ).is_ahead_and_compatible


@dataclass(frozen=True)
class Schema:
    """What code relies on, and the rules that its rows have to obey."""

    # By table and column: the type.
    types: dict[tuple[str, str], str]
    # Columns that an INSERT has to name.
    required: frozenset[tuple[str, str]]
    # By table and normalized SQL: the SQL.
    rules: dict[tuple[str, str], str]


def read_schema(connection: Connection) -> Schema:
    inspector = inspect(connection)
    columns = {
        (name, stored["name"]): stored
        for (_, name), found in inspector.get_multi_columns().items()
        for stored in found
    }
    required = (
        key
        for key, stored in columns.items()
        if not stored["nullable"]
        and stored["default"] is None
        and not stored.get("identity")
        and not stored.get("computed")
    )
    types = {key: repr(stored["type"]) for key, stored in columns.items()}
    rules = {(table, normalize_sql(sql)): sql for table, sql in _read_rules(connection)}
    return Schema(types, frozenset(required), rules)


def _read_rules(connection: Connection) -> Iterator[tuple[str, str]]:
    inspector = inspect(connection)
    for (_, table), checks in inspector.get_multi_check_constraints().items():
        for check in checks:
            yield table, f"CHECK ({check['sqltext']})"
    for (_, table), keys in inspector.get_multi_foreign_keys().items():
        for key in keys:
            names = ", ".join(key["constrained_columns"])
            yield table, f"FOREIGN KEY ({names}) to {key['referred_table']}"
    for (_, table), uniques in inspector.get_multi_unique_constraints().items():
        for unique in uniques:
            yield table, f"UNIQUE ({', '.join(unique['column_names'])})"
    query = "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = current_schema()"
    if connection.dialect.name == "sqlite":
        query = "SELECT tbl_name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    for table, statement in connection.execute(text(query)):
        if re.match(r"CREATE\s+UNIQUE\b", statement, re.I):
            yield table, f"UNIQUE {statement[statement.index('(') :]}"


def find_breaking_changes(before: Schema, after: Schema) -> Iterator[str]:
    """What code that works with the first schema may miss or violate in the second one."""
    columns: dict[str, set[str]] = {}
    for (table, name), kind in before.types.items():
        columns.setdefault(table, set()).add(name)
        if (table, name) not in after.types:
            yield f"{table}.{name} is gone"
        elif after.types[table, name] != kind:
            yield f"{table}.{name} has another type"
    for table, name in sorted(after.required - before.required):
        if table in columns:
            yield f"{table}.{name} needs a value"
    for table, key in sorted(after.rules.keys() - before.rules.keys()):
        rule = after.rules[table, key]
        # Old code leaves a new column at its default.
        if columns.get(table, set()) & {*re.findall(r"\w+", LITERAL.sub("", rule))}:
            yield f"{table} has a new {rule}"
