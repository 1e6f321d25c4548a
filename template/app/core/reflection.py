"""What SQLAlchemy does not reflect on SQLite: collations, indexes on expressions and more."""

import re
import sqlite3
from contextlib import closing
from typing import Any, cast

from alembic.ddl.sqlite import SQLiteImpl
from alembic.util import CommandError
from sqlalchemy import (
    CheckConstraint,
    Connection,
    DefaultClause,
    Index,
    String,
    Table,
    TextClause,
    UniqueConstraint,
    literal_column,
    text,
)
from sqlalchemy.engine.reflection import Inspector
from sqlalchemy.exc import OperationalError

LITERAL = re.compile(r"('(?:[^']|'')*')")
_INDEX = re.compile(
    r"CREATE\s+(UNIQUE\s+)?INDEX\s.+?\sON\s.+?\((.*?)\)(?:\s+WHERE\s+(.*))?", re.DOTALL | re.I
)
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w)")
_ON_CONFLICT = re.compile(r"\bUNIQUE\s*\(([^()]*)\)\s*ON\s+CONFLICT\s+(\w+)", re.I)


class ReflectingSQLiteImpl(SQLiteImpl):
    def autogen_column_reflect(
        self, inspector: Inspector, table: Table, column_info: dict[str, Any]
    ) -> None:
        """Add what SQLAlchemy does not reflect. Called for each column, even in a batch."""
        super().autogen_column_reflect(inspector, table, column_info)
        connection = cast(Connection, inspector.bind)
        if "collations" not in table.info:
            table.info["collations"] = _collations(connection, table.name)
            create_table = LITERAL.sub("''", _create_table_statement(connection, table.name))
            if re.search(r"\bAUTOINCREMENT\b", create_table, re.I):
                # For a batch, and a downgrade that creates the table again.
                table.dialect_kwargs["sqlite_autoincrement"] = True
            _add_expression_indexes(connection, table)
        if isinstance(column_info["type"], String):
            column_info["type"].collation = table.info["collations"].get(column_info["name"])


def normalize_sql(sql: str) -> str:
    """One text for all spellings of an expression: only literals keep their spaces and case."""
    parts = LITERAL.split(sql)
    parts[::2] = [re.sub(r'[\s"`\[\]]', "", part).lower() for part in parts[::2]]
    return "".join(parts)


def index_statements(connection: Connection, table: str) -> dict[str, str]:
    """The statements that create the indexes of a table, but not those of its constraints."""
    rows = connection.execute(
        text(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
            " AND tbl_name = :table COLLATE NOCASE ORDER BY rowid"
        ),
        {"table": table},
    )
    return {row.name: row.sql for row in rows}


def find_schema_error(connection: Connection) -> str:
    """SQLite's error for the first invalid view or trigger, or an empty text.

    SQLite checks all of them when any table is renamed.
    """
    connection.exec_driver_sql("CREATE TABLE _alembic_tmp_check_1 (id)")
    try:
        connection.exec_driver_sql(
            "ALTER TABLE _alembic_tmp_check_1 RENAME TO _alembic_tmp_check_2"
        )
    except OperationalError as error:
        return str(error.orig)
    finally:
        connection.exec_driver_sql("DROP TABLE IF EXISTS _alembic_tmp_check_1")
        connection.exec_driver_sql("DROP TABLE IF EXISTS _alembic_tmp_check_2")
    return ""


def add_unreflected(connection: Connection, old: Table, new: Table, *, with_checks: bool) -> None:
    """Complete the definition of the table that replaces a reflected one."""
    name = {"name": old.name}
    create_table = LITERAL.sub("''", _create_table_statement(connection, old.name))
    uniques = [item for item in new.constraints if isinstance(item, UniqueConstraint)]
    for columns, action in _ON_CONFLICT.findall(create_table):
        for unique in uniques:
            if re.findall(r"\w+", columns) == [column.name for column in unique.columns]:
                unique.dialect_kwargs["sqlite_on_conflict"] = action.upper()
    query = text("SELECT * FROM pragma_foreign_key_list(:name)")
    for row in connection.execute(query, name).mappings():
        for key in new.foreign_key_constraints:
            # SQLAlchemy reflects the actions of those that have a name.
            if key.name is None and next(iter(key.columns)).name == row["from"]:
                key.ondelete, key.onupdate = row["on_delete"], row["on_update"]
    for check in old.constraints if with_checks else ():
        if isinstance(check, CheckConstraint) and check.name is None:
            new.append_constraint(CheckConstraint(check.sqltext))
    _escape_colons(new)


def _escape_colons(table: Table) -> None:
    """SQLAlchemy reads the 1 in the text '{"a":1}' as a parameter, and writes NULL."""

    def escape(clause: Any) -> Any:
        is_text = isinstance(clause, TextClause)
        return text(_PARAMETER.sub(r"\\:", clause.text)) if is_text else clause

    for check in table.constraints:
        if isinstance(check, CheckConstraint):
            check.sqltext = escape(check.sqltext)
    for column in table.c:
        if column.computed is not None:
            column.computed.sqltext = escape(column.computed.sqltext)
        elif isinstance(column.server_default, DefaultClause):
            column.server_default.arg = escape(column.server_default.arg)


def _create_table_statement(connection: Connection, table: str) -> str:
    query = text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :table")
    statement = connection.execute(query, {"table": table}).scalar()
    if statement is None:
        # SQLite itself ignores the case of names, but SQLAlchemy finds half of the table then.
        raise CommandError(f"SQLite has no table of exactly this name: {table}")
    return str(statement)


def add_index(table: Table, name: str, statement: str) -> Index | None:
    """Add an index as SQLite has stored it to a table."""
    found = _INDEX.fullmatch(statement.strip())
    if found is None:
        return None
    unique, expressions, where = found.groups()
    index = Index(name, literal_column(expressions), unique=bool(unique))
    if where:
        index.dialect_kwargs["sqlite_where"] = literal_column(where)
    table.append_constraint(index)
    return index


def _add_expression_indexes(connection: Connection, table: Table) -> None:
    for name, statement in index_statements(connection, table.name).items():
        columns = connection.execute(text("SELECT name FROM pragma_index_info(:n)"), {"n": name})
        if None in columns.scalars().all():
            add_index(table, name, statement)


def _collations(connection: Connection, table: str) -> dict[str, str]:
    """How each column compares texts. SQLite only tells it for the columns of an index."""
    create_table = _create_table_statement(connection, table)
    if "collate" not in create_table.lower():
        return {}
    found = {}
    with closing(sqlite3.connect(":memory:")) as empty:
        empty.execute(create_table)
        columns = [
            row[0] for row in empty.execute("SELECT name FROM pragma_table_info(?)", [table])
        ]
        for column in columns:
            # Both are identifiers, which cannot be parameters.
            quoted = (name.replace('"', '""') for name in (table, column))
            empty.execute('CREATE INDEX i ON "{}" ("{}")'.format(*quoted))
            collation = empty.execute("SELECT coll FROM pragma_index_xinfo('i')").fetchone()[0]
            found[column] = collation
            empty.execute("DROP INDEX i")
    return {column: name for column, name in found.items() if name != "BINARY"}
