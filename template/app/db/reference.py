"""Reference rows: those that the code relies on, such as the permissions that it asks for.

`alembic upgrade head` adds the ones that are missing. A database that has no others is empty.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Insert, Select, Table, TableClause, delete, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from app.db.base import Base


@dataclass(frozen=True)
class ReferenceRows:
    """Rows that are told apart by a column with a unique constraint."""

    key: str
    rows: Sequence[Mapping[str, str]]


def keep_rows(table: Table, key: str, rows: Sequence[Mapping[str, str]]) -> None:
    table.info["reference"] = ReferenceRows(key, rows)


def reference_rows(table: TableClause) -> ReferenceRows | None:
    found: ReferenceRows | None = table.info.get("reference") if isinstance(table, Table) else None
    return found


def insert_into(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT with the `on_conflict_...` methods that both databases know."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def reference_statements(dialect: str) -> list[Insert]:
    tables = ((table, reference_rows(table)) for table in Base.metadata.sorted_tables)
    return [
        insert_into(dialect, table).values([*kept.rows]).on_conflict_do_nothing()
        for table, kept in tables
        if kept
    ]


def add_reference_rows(connection: Connection) -> None:
    for statement in reference_statements(connection.dialect.name):
        connection.execute(statement)


def missing_reference_rows(connection: Connection) -> list[str]:
    """What an upgrade would add."""
    missing = []
    for table in Base.metadata.sorted_tables:
        if reference := reference_rows(table):
            there = set(connection.scalars(select(table.c[reference.key])))
            keys = (row[reference.key] for row in reference.rows)
            missing += [f"{table.name}: {key}" for key in keys if key not in there]
    return missing


def clear_reference_rows(connection: Connection) -> None:
    """Make room for those of another database, which have ids of their own."""
    for table in Base.metadata.sorted_tables:
        if reference_rows(table):
            connection.execute(delete(table))


def own_row(table: TableClause) -> Select[Any]:
    """A query for a row of a table that is not a reference row."""
    query = select(literal(1)).select_from(table).limit(1)
    if reference := reference_rows(table):
        keys = [row[reference.key] for row in reference.rows]
        query = query.where(table.c[reference.key].not_in(keys))
    return query


def has_own_rows(connection: sqlite3.Connection) -> bool:
    """Whether any table of an SQLite database, known to a model or not, has such a row."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    tables: list[TableClause] = [
        Base.metadata.tables.get(name, TableClause(name))
        for (name,) in names
        if name != "alembic_version" and not name.startswith("sqlite_")
    ]
    return any(connection.execute(in_sqlite(own_row(table))).fetchone() for table in tables)


def in_sqlite(query: Select[Any]) -> str:
    compiled = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    return str(compiled)
