"""Batches that keep everything that belongs to a table. SQLite alters a table by replacing it.

Alembic builds the new table from what SQLAlchemy reflects. That lacks triggers, indexes on
expressions, the order and the collation of other indexes, AUTOINCREMENT and more.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, cast

from alembic.operations.batch import ApplyBatchImpl, BatchOperationsImpl
from alembic.util import CommandError
from sqlalchemy import CheckConstraint, Column, Connection, Table, event, inspect, text

from app.core.autogenerate import ComparingSQLiteImpl
from app.core.reflection import LITERAL, add_unreflected, find_schema_error, index_statements

_CREATE = re.compile(
    r"\s*CREATE\s+(?:UNIQUE\s+)?(INDEX|TRIGGER)\s+(?:IF\s+NOT\s+EXISTS\s+)?[\"'`\[]?(\w+)", re.I
)
_DELETE_SEQUENCE = "DELETE FROM sqlite_sequence WHERE name = :name"
_INSERT_SEQUENCE = "INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :seq)"


class BatchSQLiteImpl(ComparingSQLiteImpl):
    """Alembic's SQLite, with batches that lose nothing.

    Alembic uses this class for SQLite once the module is imported.
    """

    __dialect__ = "sqlite"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._replacement: Replacement | None = None
        # By name: indexes and triggers that a batch has created again, and those that it could not.
        self._restored: set[str] = set()
        self._lost: dict[str, str] = {}
        # The error that SQLite had before the first batch of a step.
        self._earlier_error: str | None = None

    def requires_recreate_in_batch(self, batch_op: BatchOperationsImpl) -> bool:
        """SQLite itself renames a column, and does so in views, triggers and other tables, too."""
        renames = {
            arguments[1]: options["name"]
            for name, arguments, options in batch_op.batch
            if name == "alter_column" and _only_renames(options)
        }
        if renames.keys() & set(renames.values()):
            return True
        others = copy(batch_op)
        others.batch = [
            operation
            for operation in batch_op.batch
            if operation[0] != "alter_column" or operation[1][1] not in renames
        ]
        return super().requires_recreate_in_batch(others)

    def prep_table_for_batch(self, batch_impl: ApplyBatchImpl, table: Table) -> None:
        """Alembic calls this when it has planned the new table, before the first statement."""
        if self.as_sql:
            self.static_output(
                f"-- Without a database, this keeps no trigger of {table.name}, and only the\n"
                "-- indexes that copy_from has."
            )
            return
        connection = cast(Connection, self.connection)
        if self._earlier_error is None:
            self._earlier_error = find_schema_error(connection)
        if not event.contains(connection, "before_cursor_execute", self._drop_restored):
            event.listen(connection, "before_cursor_execute", self._drop_restored)
        self._replacement = Replacement(connection, batch_impl)
        self._restored -= self._replacement.objects.keys()

    def rename_table(
        self, old_table_name: str, new_table_name: str, schema: str | None = None
    ) -> None:
        """The last statement of a replacement, apart from the indexes."""
        replacement, self._replacement = self._replacement, None
        if replacement is None or old_table_name != replacement.temporary_name:
            super().rename_table(old_table_name, new_table_name, schema)
            return
        with _legacy_alter_table(cast(Connection, self.connection)):
            super().rename_table(old_table_name, new_table_name, schema)
        self._lost |= replacement.restore()
        self._restored |= replacement.objects.keys() - self._lost.keys()
        for index in replacement.new_indexes:
            self.create_index(index)

    def _drop_restored(self, _: Connection, cursor: Any, statement: str, *__: object) -> None:
        """Drop a restored object that a migration creates again, since it expects it to be lost."""
        created = _CREATE.match(statement)
        if created and created[2] in self._restored:
            self._restored.remove(created[2])
            cursor.execute(f'DROP {created[1]} "{created[2]}"')

    def reject_losses(self) -> None:
        """Raise CommandError if the batches of this step have left something out or broken."""
        if self._earlier_error is None or self.connection is None:
            return
        names = set(self.connection.execute(text("SELECT name FROM sqlite_master")).scalars())
        for name in sorted(self._lost.keys() - names):
            raise CommandError(
                f"A batch drops a column that the index {name} needs: {self._lost[name]}\n"
                f"Drop the index before the batch: op.execute('DROP INDEX \"{name}\"')"
            )
        error = find_schema_error(self.connection)
        if error not in ("", self._earlier_error):
            raise CommandError(
                f"A batch changes a table that a view or a trigger needs as it was: {error}\n"
                "Drop that with op.execute() before the batch, and create it again after the batch."
            )
        self._lost, self._earlier_error = {}, None


class Replacement:
    """A table that a batch replaces, and what has to be created for it again."""

    def __init__(self, connection: Connection, batch: ApplyBatchImpl) -> None:
        self._connection = connection
        self._old, self._new = batch.table, cast(Table, batch.new_table)
        self.temporary_name = batch.temp_table_name
        self._rename_columns(batch)
        self._dropped_columns = {c.name for c in self._old.c} - {c.name for c in self._new.c}
        if batch.reflected:
            has_new_checks = any(isinstance(item, CheckConstraint) for item in batch.table_args)
            add_unreflected(connection, self._old, self._new, with_checks=not has_new_checks)
        for column in self._new.c:
            if column.computed is not None:
                # SQLite fills it.
                batch.column_transfers[column.key].pop("expr", None)
        self._drop_checks()
        self._sequence = self._read_sequence()
        self.objects = self._read_objects(batch)
        self.new_indexes = list(batch.new_indexes.values())
        batch.new_indexes.clear()

    def restore(self) -> dict[str, str]:
        """Create the indexes and triggers; returns those that need a dropped column."""
        lost = {}
        for name, sql in self.objects.items():
            if sql.startswith("CREATE TRIGGER") or not _mentions(self._dropped_columns, sql):
                self._connection.exec_driver_sql(sql)
            else:
                lost[name] = sql
        if self._sequence is not None:
            values = {"name": self._old.name, "seq": self._sequence}
            self._connection.execute(text(_DELETE_SEQUENCE), values)
            self._connection.execute(text(_INSERT_SEQUENCE), values)
        return lost

    def _rename_columns(self, batch: ApplyBatchImpl) -> None:
        """Rename them in the old table first: SQLite changes all that refers to them."""
        new_names = {
            column: self._new.c[column.key].name
            for column in self._old.c
            if column.key in self._new.c and self._new.c[column.key].name != column.name
        }
        if not new_names:
            return
        for column in self._old.c:
            if column.name in new_names.values():
                self._rename_column(column, f"_alembic_tmp_{column.name}")
        for column, name in new_names.items():
            self._rename_column(column, name)
        checks = inspect(self._connection).get_check_constraints(self._old.name)
        stored = {check["name"]: check["sqltext"] for check in checks}
        for check in self._checks():
            if batch.named_constraints.get(str(check.name)) in self._old.constraints:
                check.sqltext = text(stored[str(check.name)])

    def _rename_column(self, column: Column[Any], name: str) -> None:
        quote = self._connection.dialect.identifier_preparer.quote
        names = quote(self._old.name), quote(column.name), quote(name)
        self._connection.exec_driver_sql("ALTER TABLE {} RENAME {} TO {}".format(*names))
        column.name = name

    def _drop_checks(self) -> None:
        """Drop the CHECK of a column with the column, but not one that is about others, too.

        SQLite would read the unknown name as a text if it is in quotes.
        """
        columns_left = {column.name for column in self._new.c}
        for check in self._checks():
            sql = f"({check.sqltext})"
            if _mentions(self._dropped_columns, sql) and _mentions(columns_left, sql):
                raise CommandError(
                    f"A batch drops a column of {self._old.name} that a CHECK needs: {sql}\n"
                    "Drop that constraint in the same batch, and create the one that you need."
                )
            if _mentions(self._dropped_columns, sql):
                self._new.constraints.remove(check)

    def _checks(self) -> list[CheckConstraint]:
        return [check for check in self._new.constraints if isinstance(check, CheckConstraint)]

    def _read_sequence(self) -> int | None:
        """The highest id ever given, which is not always in the table any more."""
        query = text("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'")
        if self._connection.execute(query).first() is None:
            return None
        query = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        return self._connection.execute(query, {"name": self._old.name}).scalar()

    def _read_objects(self, batch: ApplyBatchImpl) -> dict[str, str]:
        """The statements of indexes and triggers, but not of indexes that the batch drops."""
        dropped = {str(index.name) for index in self._old.indexes} - batch.indexes.keys()
        indexes = index_statements(self._connection, self._old.name)
        for name in indexes:
            # Alembic's version may lack something.
            batch.indexes.pop(name, None)
        query = text(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            " AND tbl_name = :table COLLATE NOCASE ORDER BY rowid"
        )
        rows = self._connection.execute(query, {"table": self._old.name})
        triggers = {row.name: row.sql for row in rows}
        return {name: sql for name, sql in (indexes | triggers).items() if name not in dropped}


def _mentions(columns: set[str], sql: str) -> bool:
    names = "|".join(map(re.escape, columns))
    expressions = LITERAL.sub("''", sql[sql.index("(") :])
    # A column may have the name of a function.
    return bool(names) and re.search(rf"\b({names})\b(?!\s*\()", expressions, re.I) is not None


def _only_renames(options: dict[str, Any]) -> bool:
    others = {options.get(key) for key in ("nullable", "type_", "autoincrement")}
    return (
        options.get("name") is not None
        and others == {None}
        and options.get("server_default", False) is False
        and options.get("comment", False) is False
    )


@contextmanager
def _legacy_alter_table(connection: Connection) -> Iterator[None]:
    """Otherwise a view of the table stops the new one from taking its name."""
    before = connection.exec_driver_sql("PRAGMA legacy_alter_table").scalar()
    connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA legacy_alter_table = {before}")
