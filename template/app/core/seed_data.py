"""Seed rows: those that the code relies on, such as the permissions that it asks for.

`alembic upgrade head` adds the missing ones. A database without any other rows counts as empty.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Insert,
    MetaData,
    Select,
    Table,
    TableClause,
    delete,
    literal,
    select,
)
from sqlalchemy.dialects import sqlite

from app.core.database import insert_for
from app.core.types import is_storable

_INFO_KEY = "seed_rows"
# They say how the schema was migrated.
ALEMBIC_TABLES = {"alembic_version", "alembic_compatible"}

# The tables of full-text indexes on SQLite, which hold nothing that the indexed tables do not.
# FTS5 would store the texts themselves in a table that ends in `_content`.
INDEX_TABLES = """
SELECT part.name FROM sqlite_master AS part JOIN sqlite_master AS search ON
    part.name IN (search.name, search.name || '_data', search.name || '_idx',
        search.name || '_docsize', search.name || '_config')
WHERE search.sql LIKE 'CREATE VIRTUAL TABLE%USING fts5%'
"""


@dataclass(frozen=True)
class SeedRows:
    """Rows, and the column with a unique constraint that tells them apart."""

    key: str
    rows: Sequence[Mapping[str, str]]


def register_seed_rows(
    metadata: MetaData, table: str, key: str, rows: Sequence[Mapping[str, str]]
) -> None:
    """`register_seed_rows(Base.metadata, "genres", "name", [{"name": "crime"}])`, in a model's file."""
    if not all(is_storable(value) for row in rows for value in row.values()):
        raise ValueError(f"a seed row of {table} has a NUL or a lone surrogate")
    metadata.info.setdefault(_INFO_KEY, {})[table] = SeedRows(key, rows)


def seed_statements(dialect: str, metadata: MetaData) -> list[Insert]:
    return [
        insert_for(dialect, table).values([*seed.rows]).on_conflict_do_nothing()
        for table, seed in _seeds(metadata)
    ]


def insert_missing_seed_rows(connection: Connection, metadata: MetaData) -> None:
    """Insert only what is missing: on SQLite, a row that is in conflict takes an id, too."""
    for table, seed in _seeds(metadata):
        if rows := _missing_rows(connection, table, seed):
            insert = insert_for(connection.dialect.name, table)
            connection.execute(insert.values(rows).on_conflict_do_nothing())


def missing_seed_rows(connection: Connection, metadata: MetaData) -> list[str]:
    """What an upgrade would add."""
    return [
        f"{table.name}: {row[seed.key]}"
        for table, seed in _seeds(metadata)
        for row in _missing_rows(connection, table, seed)
    ]


def _missing_rows(connection: Connection, table: Table, seed: SeedRows) -> list[dict[str, str]]:
    key = table.c[seed.key]
    # The table may have many other rows.
    is_seed = key.in_([row[seed.key] for row in seed.rows])
    present = set(connection.scalars(select(key).where(is_seed)))
    return [dict(row) for row in seed.rows if row[seed.key] not in present]


def delete_seed_rows(connection: Connection, metadata: MetaData) -> None:
    """Make room for those of another database, where they have other ids."""
    # Rows that refer to others go first.
    for table, _ in reversed(_seeds(metadata)):
        connection.execute(delete(table))


def select_own_row(table: TableClause) -> Select[Any]:
    """A query for any row that is not a seed row."""
    query = select(literal(1)).select_from(table).limit(1)
    if isinstance(table, Table) and (seed := _registered(table.metadata).get(table.name)):
        query = query.where(table.c[seed.key].not_in([row[seed.key] for row in seed.rows]))
    return query


def has_own_rows(connection: sqlite3.Connection, metadata: MetaData) -> bool:
    """Whether any table of a SQLite database has a row that is not a seed row."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    indexes = {name for (name,) in connection.execute(INDEX_TABLES)} - metadata.tables.keys()
    tables: list[TableClause] = [
        # A table without a model counts, too.
        metadata.tables.get(name, TableClause(name))
        for (name,) in names
        if name not in ALEMBIC_TABLES | indexes and not name.startswith("sqlite_")
    ]
    return any(connection.execute(_in_sqlite(select_own_row(table))).fetchone() for table in tables)


def _registered(metadata: MetaData) -> dict[str, SeedRows]:
    found: dict[str, SeedRows] = metadata.info.get(_INFO_KEY, {})
    return found


def _seeds(metadata: MetaData) -> list[tuple[Table, SeedRows]]:
    """Each table before those that refer to it."""
    seeds = _registered(metadata)
    return [(table, seeds[table.name]) for table in metadata.sorted_tables if table.name in seeds]


def _in_sqlite(query: Select[Any]) -> str:
    compiled = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    return str(compiled)
