"""Copies a whole database to another one, such as from SQLite to PostgreSQL."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, StatementError

from app.core.database import parse_url, synchronous_url
from app.core.seed_data import ALEMBIC_TABLES, INDEX_TABLES, delete_seed_rows, select_own_row
from app.core.sqlite import configure_sqlite_begin
from app.core.types import is_storable

_BATCH_ROWS = 1_000
# The last id of each table with AUTOINCREMENT.
_SQLITE_SEQUENCE = sa.table("sqlite_sequence", sa.column("name"), sa.column("seq"))

# Called with a table, the number of rows copied so far, and the number of all rows.
Progress = Callable[[str, int, int], None]


class CopyError(Exception):
    """The reason why the copy failed, as a sentence. The target is unchanged."""


def copy_database(
    source_url: str, target_url: str, metadata: sa.MetaData, progress: Progress
) -> dict[str, int]:
    """Copy every row of every model's table, and return the number of rows by table.

    The target must be migrated and empty. The copy is one transaction there: after a crash the
    target is empty again. Before the commit, each table is compared by count and checksum.
    """
    if _is_missing(source_url):
        raise CopyError("The database does not exist: run `alembic upgrade head`.")
    if _is_missing(target_url):
        raise CopyError("The target does not exist: run `alembic -x url=... upgrade head`.")
    source, target = (
        sa.create_engine(synchronous_url(url), poolclass=sa.NullPool, hide_parameters=True)
        for url in (source_url, target_url)
    )
    tables = metadata.sorted_tables
    # One snapshot for all tables, while others write.
    configure_sqlite_begin(source, "BEGIN", {})
    configure_sqlite_begin(target, "BEGIN IMMEDIATE", {})
    with source.begin() as reader, target.begin() as writer:
        if target.dialect.name == "postgresql":
            # SQLite stores no time zone, and its times are UTC.
            writer.execute(sa.text("SET LOCAL TIME ZONE 'UTC'"))
        _check_preconditions(reader, writer, tables)
        delete_seed_rows(writer, metadata)
        copied = {table.name: _copy_table(reader, writer, table, progress) for table in tables}
        for table in tables:
            if _checksum(reader, table) != _checksum(writer, table):
                raise CopyError(f"The copy of {table.name} differs, so nothing was kept.")
    return copied


def _is_missing(url: str) -> bool:
    """Whether opening the file would create it, empty."""
    parsed = parse_url(url)
    return parsed.get_backend_name() == "sqlite" and not os.access(parsed.database or "", os.F_OK)


def _check_preconditions(
    reader: sa.Connection, writer: sa.Connection, tables: list[sa.Table]
) -> None:
    source, target = _revisions(reader), _revisions(writer)
    if source != target:
        raise CopyError(
            f"The source is at revision {source} and the target at {target}. Migrate both to the "
            "head first, the target with `alembic -x url=... upgrade head`."
        )
    known = {table.name for table in tables} | ALEMBIC_TABLES
    if reader.dialect.name == "sqlite":
        known |= {*reader.scalars(sa.text(INDEX_TABLES))}
    if unknown := set(sa.inspect(reader).get_table_names()) - known:
        raise CopyError(f"These tables have no model: {', '.join(sorted(unknown))}. Add one.")
    filled = [table.name for table in tables if writer.execute(select_own_row(table)).first()]
    if filled:
        raise CopyError(f"The target already has rows in {', '.join(filled)}.")


def _revisions(connection: sa.Connection) -> str:
    if not sa.inspect(connection).has_table("alembic_version"):
        return "none"
    found = connection.scalars(sa.text("SELECT version_num FROM alembic_version"))
    return ", ".join(sorted(found)) or "none"


def _copy_table(
    reader: sa.Connection, writer: sa.Connection, table: sa.Table, progress: Progress
) -> int:
    total = reader.scalar(sa.select(sa.func.count()).select_from(table)) or 0
    done = 0
    progress(table.name, done, total)
    keys = [column.key for column in _stored_columns(table)]
    for batch in _batches(reader, table):
        _insert(writer, table, [dict(zip(keys, row, strict=True)) for row in batch])
        done += len(batch)
        progress(table.name, done, total)
    _continue_ids(reader, writer, table)
    return done


def _insert(writer: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert these rows; CopyError, with the first row that the target rejects, never its values.

    SQLite accepts what PostgreSQL rejects: a NUL, a text that is too long, letters in a number.
    """
    try:
        with writer.begin_nested():
            writer.execute(sa.insert(table), rows)
    except StatementError as error:
        if len(rows) == 1:
            name = _row_name(table, rows[0])
            raise CopyError(f"The target rejects {name}: {_reason(error)}.") from None
        for row in rows:
            _insert(writer, table, [row])


def _row_name(table: sa.Table, row: dict[str, Any]) -> str:
    keys = _describe_key((column, row[column.key]) for column in table.primary_key)
    columns = ", ".join(
        column.name
        for column in _stored_columns(table)
        if isinstance(value := row[column.key], str) and not is_storable(value)
    )
    return f"the row of {table.name} with {keys}" + (f" (a NUL in {columns})" if columns else "")


def _stored_columns(table: sa.Table) -> list[sa.Column[Any]]:
    """All columns but those that the database computes."""
    return [column for column in table.columns if column.computed is None]


def _batches(connection: sa.Connection, table: sa.Table) -> Iterator[list[sa.Row[Any]]]:
    statement = sa.select(*_stored_columns(table)).order_by(*table.primary_key.columns)
    result = connection.execution_options(yield_per=_BATCH_ROWS).execute(statement)
    try:
        yield from (list(partition) for partition in result.partitions())
    except (DBAPIError, ValueError, TypeError, LookupError) as error:
        name = _unreadable_row(connection, table)
        raise CopyError(f"{name} cannot be read: {_reason(error)}.") from None


def _unreadable_row(connection: sa.Connection, table: sa.Table) -> str:
    """The first row whose stored values its columns cannot express, such as an invalid date."""
    keys = list(table.primary_key)
    for key in connection.execute(sa.select(*keys)).all():
        pairs = list(zip(keys, key, strict=True))
        row = sa.select(*_stored_columns(table)).where(
            *(column == value for column, value in pairs)
        )
        try:
            connection.execute(row).all()
        except (DBAPIError, ValueError, TypeError, LookupError):
            return f"The row of {table.name} with {_describe_key(pairs)}"
    return f"A row of {table.name}"


def _describe_key(pairs: Iterable[tuple[sa.Column[Any], object]]) -> str:
    return ", ".join(f"{column.name} {value!r}" for column, value in pairs)


def _reason(error: Exception) -> object:
    """The text of a database error. That of a type, such as a date, would quote the value."""
    cause = getattr(error, "orig", None) or error
    return cause if isinstance(error, DBAPIError) else type(cause).__name__


def _continue_ids(reader: sa.Connection, writer: sa.Connection, table: sa.Table) -> None:
    """Continue after the ids that the source has given, even if their rows are deleted."""
    column = table.autoincrement_column
    if column is None or not isinstance(column.type, sa.Integer):
        return
    last = _last_id(reader, column)
    if writer.dialect.name == "postgresql":
        # Without an id that was given, the first one is 1.
        state = max(last, 1), last > 0
        writer.execute(sa.select(sa.func.setval(_sequence(writer, column), *state)))
    elif sa.inspect(writer).has_table(_SQLITE_SEQUENCE.name):
        writer.execute(sa.delete(_SQLITE_SEQUENCE).where(_SQLITE_SEQUENCE.c.name == table.name))
        writer.execute(sa.insert(_SQLITE_SEQUENCE).values(name=table.name, seq=last))


def _last_id(connection: sa.Connection, column: sa.Column[Any]) -> int:
    queries = [sa.select(sa.func.max(column))]
    if connection.dialect.name == "postgresql":
        sequence = sa.cast(_sequence(connection, column), postgresql.REGCLASS)
        queries.append(sa.select(sa.func.pg_sequence_last_value(sequence)))
    elif sa.inspect(connection).has_table(_SQLITE_SEQUENCE.name):
        is_of_table = _SQLITE_SEQUENCE.c.name == column.table.name
        queries.append(sa.select(_SQLITE_SEQUENCE.c.seq).where(is_of_table))
    return max(connection.scalar(query) or 0 for query in queries)


def _sequence(connection: sa.Connection, column: sa.Column[Any]) -> sa.Function[Any]:
    table = connection.dialect.identifier_preparer.format_table(column.table)
    return sa.func.pg_get_serial_sequence(table, column.name)


def _checksum(connection: sa.Connection, table: sa.Table) -> tuple[int, int]:
    """The number of rows, and the sum of their digests: the order of rows differs by database."""
    count = total = 0
    for batch in _batches(connection, table):
        count += len(batch)
        for row in batch:
            digest = hashlib.sha256(repr([_canonical(value) for value in row]).encode()).digest()
            total = (total + int.from_bytes(digest)) % 2**256
    return count, total


def _canonical(value: object) -> object:
    """One form for values that databases return in two: times with a zone, and JSON objects."""
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    return value
