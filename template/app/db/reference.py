"""Reference rows: those that the code relies on, such as the permissions that it asks for.

`alembic upgrade head` adds the ones that are missing. A database that has no others is empty.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Insert, Table, delete, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from app.db.base import Base


@dataclass(frozen=True)
class ReferenceRows:
    """Rows that are told apart by a column with a unique constraint."""

    key: str
    rows: Sequence[Mapping[str, str]]


def keep_rows(table: Table, key: str, rows: Sequence[Mapping[str, str]]) -> None:
    table.info["reference"] = ReferenceRows(key, rows)


def reference_rows(table: Table | None) -> ReferenceRows | None:
    found: ReferenceRows | None = None if table is None else table.info.get("reference")
    return found


def insert_missing(dialect: str, table: Table, rows: Sequence[Mapping[str, object]]) -> Insert:
    """The statement that inserts those rows whose unique values are not taken."""
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return insert(table).values([dict(row) for row in rows]).on_conflict_do_nothing()


def reference_statements(dialect: str) -> list[Insert]:
    tables = ((table, reference_rows(table)) for table in Base.metadata.sorted_tables)
    return [insert_missing(dialect, table, kept.rows) for table, kept in tables if kept]


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


def table_has_own_rows(connection: Connection, table: Table) -> bool:
    """Whether a table has a row that is not a reference row."""
    query = select(literal(1)).select_from(table).limit(1)
    if reference := reference_rows(table):
        keys = [row[reference.key] for row in reference.rows]
        query = query.where(table.c[reference.key].not_in(keys))
    return connection.execute(query).first() is not None


def has_own_rows(connection: sqlite3.Connection) -> bool:
    """The same of every table of an SQLite database, without SQLAlchemy."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return any(
        sqlite_table_has_own_rows(connection, name)
        for (name,) in names
        if name != "alembic_version" and not name.startswith("sqlite_")
    )


def sqlite_table_has_own_rows(connection: sqlite3.Connection, name: str) -> bool:
    query = f'SELECT 1 FROM "{name}"'  # noqa: S608
    reference = reference_rows(Base.metadata.tables.get(name))
    keys = [row[reference.key] for row in reference.rows] if reference else []
    if reference:
        query += f' WHERE "{reference.key}" NOT IN ({", ".join("?" for _ in keys)})'
    return connection.execute(f"{query} LIMIT 1", keys).fetchone() is not None
