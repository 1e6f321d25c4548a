"""Search for part of a text, in pages.

On SQLite, a full-text index of three-letter pieces (trigrams) finds the rows, if a migration has
created one: `{table}_search`, with the columns after _START each. On PostgreSQL, LIKE uses an index
of pg_trgm by itself. Without an index, the results are the same, but every row is read.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    column,
    literal_column,
    or_,
    select,
    table,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.core.pagination import Page, PageParams, paginate

_Item = TypeVar("_Item")

# The shortest text that an index of trigrams can find. A shorter one is only found at the start.
_MIN_LENGTH = 3
# ASCII's unit separator, which no ShortText contains. Two of them precede the text of a column, so
# that one or two letters at its start make a trigram.
_START = "\x1f"

_HAS_INDEX = text("SELECT sql LIKE 'CREATE VIRTUAL%' FROM sqlite_master WHERE name = :name")


async def search(
    session: AsyncSession,
    statement: Select[_Item],
    columns: Sequence[InstrumentedAttribute[str]],
    part: str,
    page: PageParams,
) -> Page[_Item]:
    """`return await search(session, select(Book), [Book.title], q, page)`: one page of matches.

    A part of one or two letters is only found at the start of a column.
    """
    is_short = len(part) < _MIN_LENGTH
    model = columns[0].class_
    name = f"{model.__tablename__}_search"
    if session.get_bind().dialect.name == "sqlite" and await session.scalar(
        _HAS_INDEX, {"name": name}
    ):
        phrase = (_START * (_MIN_LENGTH - len(part)) if is_short else "") + part
        found = _in_index(name, phrase, page)
        if _has_all_rows(statement):
            # The index finds them in the order of their ids, so the page needs no others.
            found = found.limit(page.limit + 1)
        statement = statement.where(model.id.in_(found))
    elif is_short:
        starts = (each.startswith(part, autoescape=True) for each in columns)
        statement = statement.where(or_(*starts))
    else:
        statement = statement.where(
            or_(*(each.contains(part, autoescape=True) for each in columns))
        )
    return await paginate(session, statement, page)


def _in_index(name: str, phrase: str, page: PageParams) -> Select[int]:
    rowid: ColumnElement[int] = column("rowid")
    matches = literal_column(name).op("MATCH")('"{}"'.format(phrase.replace('"', '""')))
    found = select(rowid).select_from(table(name)).where(matches, rowid > page.after)
    return found.order_by(rowid)


def _has_all_rows(statement: Select[Any]) -> bool:
    """Whether no other filter or join can drop rows that the index has found."""
    tables = statement.get_final_froms()
    return statement.whereclause is None and len(tables) == 1 and isinstance(tables[0], Table)
