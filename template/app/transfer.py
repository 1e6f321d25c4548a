"""Moves a whole database to another one, as from SQLite to PostgreSQL."""

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import app.models  # noqa: F401  (registers every table)
from app.db.base import Base
from app.db.engine import parse_url, synchronous_url, take_over_transactions
from app.db.reference import clear_reference_rows, own_row

BATCH_ROWS = 1_000

Progress = Callable[[str, int, int], None]


class TransferError(Exception):
    """Why nothing was copied, in a sentence; the target is as it was."""


def transfer(source_url: str, target_url: str, progress: Progress) -> dict[str, int]:
    """Copy every row of every model's table; returns how many rows each table had.

    The target has to be migrated and empty. All of it is one transaction there, so after a crash
    it is empty again, and the copy can be run anew. Before the commit each table is read back and
    compared with what was sent, by count and checksum. `progress` is told a table, the rows
    copied so far and the rows that there are.
    """
    if is_missing(source_url) or is_missing(target_url):
        raise TransferError("One of the two is a file that does not exist.")
    source = sa.create_engine(synchronous_url(source_url), hide_parameters=True)
    target = sa.create_engine(synchronous_url(target_url), hide_parameters=True)
    try:
        return copy_all(source, target, progress)
    finally:
        source.dispose()
        target.dispose()


def is_missing(url: str) -> bool:
    """Opening it would create it, empty."""
    parsed = parse_url(url)
    return parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists()


def copy_all(source: sa.Engine, target: sa.Engine, progress: Progress) -> dict[str, int]:
    tables = Base.metadata.sorted_tables
    # One snapshot for all tables, beside whoever is writing.
    take_over_transactions(source, "BEGIN", {})
    with source.begin() as reader, target.begin() as writer:
        if target.dialect.name == "postgresql":
            # SQLite keeps no zone: its times are UTC, and are to arrive as that.
            writer.execute(sa.text("SET LOCAL TIME ZONE 'UTC'"))
        refuse_unless_alike(reader, writer, tables)
        clear_reference_rows(writer)
        copied = {table.name: copy_table(reader, writer, table, progress) for table in tables}
        for table in tables:
            if checksum(reader, table) != checksum(writer, table):
                raise TransferError(f"{table.name} did not arrive as it was sent; nothing is kept.")
    return copied


def refuse_unless_alike(
    reader: sa.Connection, writer: sa.Connection, tables: list[sa.Table]
) -> None:
    ours, theirs = revisions(reader), revisions(writer)
    if ours != theirs:
        raise TransferError(
            f"The source is at revision {ours} and the target at {theirs}: first bring both to "
            "the head, the target with `alembic -x url=... upgrade head`."
        )
    known = {table.name for table in tables} | {"alembic_version"}
    if unknown := set(sa.inspect(reader).get_table_names()) - known:
        raise TransferError(f"No model has the tables {', '.join(sorted(unknown))}: write one.")
    filled = [table.name for table in tables if writer.execute(own_row(table)).first()]
    if filled:
        raise TransferError(f"The target has rows already, in {', '.join(filled)}.")


def revisions(connection: sa.Connection) -> str:
    if not sa.inspect(connection).has_table("alembic_version"):
        return "none"
    found = connection.scalars(sa.text("SELECT version_num FROM alembic_version"))
    return ", ".join(sorted(found)) or "none"


def copy_table(
    reader: sa.Connection, writer: sa.Connection, table: sa.Table, progress: Progress
) -> int:
    total = reader.scalar(sa.select(sa.func.count()).select_from(table)) or 0
    done = 0
    progress(table.name, done, total)
    keys = [column.key for column in stored_columns(table)]
    for batch in batches(reader, table):
        writer.execute(sa.insert(table), [dict(zip(keys, row, strict=True)) for row in batch])
        done += len(batch)
        progress(table.name, done, total)
    reset_sequence(writer, table)
    return done


def stored_columns(table: sa.Table) -> list[sa.Column[Any]]:
    """All but those that the database computes."""
    return [column for column in table.columns if column.computed is None]


def batches(connection: sa.Connection, table: sa.Table) -> Iterator[list[sa.Row[Any]]]:
    statement = sa.select(*stored_columns(table)).order_by(*table.primary_key.columns)
    result = connection.execution_options(yield_per=BATCH_ROWS).execute(statement)
    yield from (list(partition) for partition in result.partitions())


def reset_sequence(writer: sa.Connection, table: sa.Table) -> None:
    """Rows came with their ids, which moved no sequence: the next new row would clash."""
    column = table.autoincrement_column
    if (
        writer.dialect.name == "postgresql"
        and column is not None
        and isinstance(column.type, sa.Integer)
    ):
        name = writer.dialect.identifier_preparer.format_table(table)
        largest = sa.select(sa.func.coalesce(sa.func.max(column), 0) + 1).scalar_subquery()
        sequence = sa.func.pg_get_serial_sequence(name, column.name)
        writer.execute(sa.select(sa.func.setval(sequence, largest, False)))


def checksum(connection: sa.Connection, table: sa.Table) -> tuple[int, int]:
    """The number of rows, and a sum of their digests: databases sort by rules of their own."""
    count = total = 0
    for batch in batches(connection, table):
        count += len(batch)
        for row in batch:
            digest = hashlib.sha256(repr([canonical(value) for value in row]).encode()).digest()
            total = (total + int.from_bytes(digest)) % 2**256
    return count, total


def canonical(value: object) -> object:
    """One form for what two databases give back in two: times with a zone, and JSON objects."""
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    return value
