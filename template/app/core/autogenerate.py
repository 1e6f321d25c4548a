"""What `alembic revision --autogenerate` and `alembic check` compare, and what they leave alone.

A difference that Alembic finds by mistake comes back with every new migration.
"""

import logging
import re
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.ddl.impl import ComparisonResult
from alembic.operations.ops import AlterColumnOp, CreateIndexOp, DropIndexOp, ModifyTableOps
from alembic.runtime.plugins import Plugin
from alembic.util import CommandError, DispatchPriority, PriorityDispatchResult
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Enum,
    Identity,
    Index,
    MetaData,
    Table,
    inspect,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, SchemaItem

from app.core.reflection import ReflectingSQLiteImpl, add_index, index_statements, normalize_sql
from app.core.seed_data import ALEMBIC_TABLES
from app.core.types import UtcDateTime

logger = logging.getLogger("alembic")

# The second one compares CHECK constraints, by name.
PLUGINS = ("alembic.autogenerate.*", "alembic.ext.checkconstraint_byname", __name__)

# PostgreSQL adds the type.
_TEXT_DEFAULT = re.compile(r"\(?'((?:[^']|'')*)'(?:::[^']+)?\)?")


class ComparingSQLiteImpl(ReflectingSQLiteImpl):
    """Alembic's SQLite, but what a migration has written equals the model that it comes from."""

    def compare_type(self, inspector_column: Column[Any], metadata_column: Column[Any]) -> bool:
        wanted = self._collation(metadata_column)
        stored = self._collation(inspector_column) or "BINARY"
        is_other = wanted is not None and wanted != stored
        return is_other or super().compare_type(inspector_column, metadata_column)

    def _collation(self, column: Column[Any]) -> str | None:
        type_sql = self.dialect.type_compiler_instance.process(column.type)
        found = re.search(r'COLLATE "?(\w+)', type_sql)
        return found and found[1].upper()

    def compare_check_constraint(
        self, metadata_constraint: CheckConstraint, reflected_constraint: CheckConstraint
    ) -> ComparisonResult:
        wanted = self.render_ddl_sql_expr(metadata_constraint.sqltext)
        stored = str(reflected_constraint.sqltext)
        if normalize_sql(wanted) == normalize_sql(stored):
            return ComparisonResult.Equal()
        return ComparisonResult.Different(f"{stored} to {wanted}")

    def correct_for_autogen_constraints(
        self,
        conn_unique_constraints: set[Any],
        conn_indexes: set[Index],
        metadata_unique_constraints: set[Any],
        metadata_indexes: set[Index],
    ) -> None:
        """Leave all indexes to `_compare_indexes`."""
        metadata_indexes.clear()
        # For a new table, this is an empty frozenset.
        if conn_indexes:
            conn_indexes.clear()


def _compare_indexes(
    autogen_context: AutogenContext,
    modify_ops: ModifyTableOps,
    schema: str | None,
    name: str,
    stored: Table | None,
    model: Table | None,
) -> PriorityDispatchResult:
    """By the statement that creates them: it has the expressions, the order and the condition."""
    connection = cast(Connection, autogen_context.connection)
    statements = index_statements(connection, name)
    before = {str(i.name): i for i in stored.indexes} if stored is not None else {}
    after = {str(i.name): i for i in model.indexes} if model is not None else {}
    for index_name in sorted({*before, *after}):
        old, new = before.get(index_name), after.get(index_name)
        statement = statements.get(index_name, "")
        if new is not None and _creates(new, statement):
            continue
        if old is not None and not _creates(old, statement):
            # The downgrade would create it without its order or its collation.
            old = add_index(Table(name, MetaData()), index_name, statement) or old
        # Alembic's filters get the new index and the old one, or the old one alone.
        item, other = (new, old) if new is not None else (cast(Index, old), None)
        if not autogen_context.run_object_filters(item, index_name, "index", new is None, other):
            continue
        if old is not None:
            modify_ops.ops.append(DropIndexOp.from_index(old))
        if new is not None:
            modify_ops.ops.append(CreateIndexOp.from_index(new))
    return PriorityDispatchResult.CONTINUE


def _creates(index: Index, statement: str) -> bool:
    created = str(CreateIndex(index).compile(dialect=sqlite.dialect()))
    return normalize_sql(created) == normalize_sql(statement)


def _compare_text_default(
    _: AutogenContext,
    alteration: AlterColumnOp,
    schema: str | None,
    table: str,
    name: str,
    stored: Column[Any],
    model: Column[Any],
) -> PriorityDispatchResult:
    """Alembic's own comparison fails for texts that are empty or have quotes or several lines."""
    wanted = getattr(model.server_default, "arg", None)
    found = _TEXT_DEFAULT.fullmatch(str(getattr(stored.server_default, "arg", "")))
    if not isinstance(wanted, str) or not found:
        return PriorityDispatchResult.CONTINUE
    if found[1].replace("''", "'") != wanted:
        alteration.modify_server_default = model.server_default
    return PriorityDispatchResult.STOP


def _skip_identity(*arguments: Any) -> PriorityDispatchResult:
    """SQLite has no IDENTITY: SQLAlchemy leaves it out when it creates the table."""
    column = arguments[-1]
    is_identity = isinstance(column.server_default, Identity)
    return PriorityDispatchResult.STOP if is_identity else PriorityDispatchResult.CONTINUE


def _refuse_new_enum_values(*arguments: Any) -> PriorityDispatchResult:
    """Alembic does not compare the values of a PostgreSQL enum, so a new one would get lost."""
    *_, table, name, stored, model = arguments
    # An array has the type of its items.
    old, new = (getattr(column.type, "item_type", column.type) for column in (stored, model))
    if not isinstance(old, Enum) or not isinstance(new, Enum):
        return PriorityDispatchResult.CONTINUE
    for value in new.enums:
        if value not in old.enums:
            literal = value.replace("'", "''")
            statement = f"ALTER TYPE {old.name} ADD VALUE '{literal}'"
            raise CommandError(
                f"{table}.{name} has the new value {value!r}, which autogenerate can't add. "
                f'Create a migration without --autogenerate that has op.execute("{statement}"), '
                "and apply it first."
            )
    return PriorityDispatchResult.CONTINUE


_add = Plugin(__name__).add_autogenerate_comparator
_add(_compare_indexes, "table", "sqlite_indexes", qualifier="sqlite")
# Before Alembic's own.
_first = DispatchPriority.FIRST
_add(_skip_identity, "column", "server_default", qualifier="sqlite", priority=_first)
_add(_refuse_new_enum_values, "column", "types", qualifier="postgresql", priority=_first)
_add(_compare_text_default, "column", "server_default", priority=_first)


def render_item(kind: str, item: object, _: object) -> str | Literal[False]:
    """Let migrations name SQLAlchemy's type: they must not import the app, which changes."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


class Filter:
    """Keeps autogenerate from dropping what no migration of the project has created.

    That is, a table or an index that someone created by hand, and what an extension adds.
    """

    def __init__(self, connection: Connection, metadata: MetaData) -> None:
        self._connection = connection
        self._metadata = metadata

    def include_name(self, name: str | None, kind: str, _: Any) -> bool:
        return kind != "table" or name not in self._ignored_names

    def include_object(
        self, item: SchemaItem, name: str | None, kind: str, is_stored: bool, other: object
    ) -> bool:
        if kind == "table" and name in self._ignored_names:
            return False
        if not is_stored and self._comes_with_type(item):
            return False
        if not is_stored or other is not None:
            return True
        names = [str(name)]
        if isinstance(item, CheckConstraint):
            # NAMING_CONVENTION has added the rest to the name of an Enum.
            names.append(str(name).removeprefix(f"ck_{item.table.name}_"))
        is_named = any(f"{q}{n}{q}" in self._migrations for n in names for q in "'\"")
        if not is_named:
            logger.info("Left alone: %s %s, which no migration names", kind, name)
        return is_named

    def _comes_with_type(self, item: SchemaItem) -> bool:
        """Whether a CHECK is part of a column that is new, or of a type that has no CHECK here."""
        rule = getattr(item, "_create_rule", None)
        if not isinstance(item, CheckConstraint) or rule is None:
            return False
        dialect = self._connection.dialect
        stored = inspect(self._connection).get_columns(item.table.name, item.table.schema)
        is_new = not {column.name for column in item.columns} <= {row["name"] for row in stored}
        return is_new or not rule(dialect.statement_compiler(dialect, None))

    @cached_property
    def _ignored_names(self) -> set[str]:
        """Alembic's tables, views, virtual tables (such as FTS5's) and where these store data."""
        views = ALEMBIC_TABLES | set(inspect(self._connection).get_view_names())
        if self._connection.dialect.name != "sqlite":
            return views
        query = text("SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE %'")
        virtual = set(self._connection.execute(query).scalars())
        prefixes = tuple(f"{name}_" for name in virtual)
        tables = set(inspect(self._connection).get_table_names()) - self._metadata.tables.keys()
        return views | virtual | {name for name in tables if name.startswith(prefixes)}

    @cached_property
    def _migrations(self) -> str:
        files = [Path(script.path) for script in context.script.walk_revisions()]
        return "\n".join(file.read_text("utf-8") for file in files)
