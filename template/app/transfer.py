"""Moves a whole database to another one, as from SQLite to PostgreSQL."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Integer,
    Row,
    Table,
    create_engine,
    func,
    insert,
    inspect,
    select,
    text,
)

import app.models  # noqa: F401  (registers every table)
from app.db.base import Base
from app.db.engine import synchronous_url, take_over_transactions

BATCH_ROWS = 1_000

Progress = Callable[[str, int, int], None]


class TransferError(Exception):
    """Why nothing was copied, in a sentence; the target is as it was."""


def transfer(source_url: str, target_url: str, progress: Progress) -> dict[str, int]:
    """Copy every row of every model's table; the rows of each table.

    The target has to be migrated and empty. All of it is one transaction there, so after a crash
    it is empty again, and the copy can be run anew. Before the commit each table is read back and
    compared with what was sent, by count and checksum. `progress` is told a table, the rows
    copied so far and the rows that there are.
    """
    source = create_engine(synchronous_url(source_url))
    target = create_engine(synchronous_url(target_url))
    try:
        return copy_all(source, target, progress)
    finally:
        source.dispose()
        target.dispose()


def copy_all(source: Engine, target: Engine, progress: Progress) -> dict[str, int]:
    tables = Base.metadata.sorted_tables
    # One snapshot for all tables, beside whoever is writing.
    take_over_transactions(source, "BEGIN", {})
    with source.begin() as reader, target.begin() as writer:
        refuse_unless_alike(reader, writer, tables)
        copied = {table.name: copy_table(reader, writer, table, progress) for table in tables}
        for table in tables:
            if checksum(reader, table) != checksum(writer, table):
                raise TransferError(f"{table.name} did not arrive as it was sent; nothing is kept.")
    return copied


def refuse_unless_alike(reader: Connection, writer: Connection, tables: list[Table]) -> None:
    ours, theirs = revisions(reader), revisions(writer)
    if ours != theirs:
        raise TransferError(
            f"The source is at revision {ours} and the target at {theirs}: first bring both to "
            "the head, the target with `alembic -x url=... upgrade head`."
        )
    filled = [table.name for table in tables if writer.execute(select(table).limit(1)).first()]
    if filled:
        raise TransferError(f"The target has rows already, in {', '.join(filled)}.")


def revisions(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return "none"
    found = connection.scalars(text("SELECT version_num FROM alembic_version"))
    return ", ".join(sorted(found)) or "none"


def copy_table(reader: Connection, writer: Connection, table: Table, progress: Progress) -> int:
    total = reader.scalar(select(func.count()).select_from(table)) or 0
    done = 0
    progress(table.name, done, total)
    for batch in batches(reader, table):
        writer.execute(insert(table), [row._asdict() for row in batch])
        done += len(batch)
        progress(table.name, done, total)
    reset_sequence(writer, table)
    return done


def batches(connection: Connection, table: Table) -> Iterator[list[Row[Any]]]:
    statement = select(table).order_by(*table.primary_key.columns)
    result = connection.execution_options(yield_per=BATCH_ROWS).execute(statement)
    yield from (list(partition) for partition in result.partitions())


def reset_sequence(writer: Connection, table: Table) -> None:
    """Rows came with their ids, which moved no sequence: the next new row would clash."""
    column = table.autoincrement_column
    if (
        writer.dialect.name == "postgresql"
        and column is not None
        and isinstance(column.type, Integer)
    ):
        largest = select(func.coalesce(func.max(column), 0) + 1).scalar_subquery()
        sequence = func.pg_get_serial_sequence(table.name, column.name)
        writer.execute(select(func.setval(sequence, largest, False)))


def checksum(connection: Connection, table: Table) -> tuple[int, str]:
    """The number of rows, and a digest of all their values in order of the primary key."""
    count, digest = 0, hashlib.sha256()
    for batch in batches(connection, table):
        count += len(batch)
        digest.update(repr([tuple(row) for row in batch]).encode())
    return count, digest.hexdigest()
