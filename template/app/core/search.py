"""Search for part of a text, in pages.

On SQLite, a full-text index of three-letter pieces (trigrams) finds the rows, if a migration has
created one: `{table}_search`, which has _START twice before each column. On PostgreSQL, ILIKE uses
an index of pg_trgm by itself. Without an index, every row is read. The results are the same, but
SQLite then ignores the case of ASCII letters only.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Select, column, literal_column, or_, table, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.core.errors import FieldError, Invalid
from app.core.pagination import Page, PageParams, _filtered, _page_by
from app.core.types import ShortText

_Item = TypeVar("_Item")

SearchText = Annotated[
    ShortText,
    Field(
        min_length=1,
        max_length=100,
        description="Part of a text. One or two letters are only found at its start.",
    ),
]

# The shortest text that an index of trigrams can find. A shorter one is only found at the start.
_MIN_LENGTH = 3
# ASCII's unit separator, which no ShortText contains. Two of them precede the text of a column, so
# that one or two letters at its start make a trigram.
_START = "\x1f"

_HAS_INDEX = text(
    "SELECT substr(sql, 1, 14) = 'CREATE VIRTUAL' FROM sqlite_master WHERE name = :name"
)


async def search(
    session: AsyncSession,
    statement: Select[_Item],
    columns: Sequence[InstrumentedAttribute[Any]],
    part: str,
    page: PageParams,
    filters: BaseModel | None = None,
) -> Page[_Item]:
    """`return await search(session, select(Book), [Book.title], q, page)`: one page of matches.

    The filters are those of `paginate`, apart from their field `q`. The order is that of the ids,
    ascending or descending. A part of one or two letters is only found at the start of a column.
    """
    order = getattr(filters, "order", "id")
    if order not in {"id", "-id"}:
        reason = "A search is in the order of the ids: use id or -id."
        raise Invalid([FieldError(["query", "order"], reason, "value_error")])
    statement = _filtered(statement, filters, ("order", "q"))
    model: Any = columns[0].class_
    index = table(f"{model.__tablename__}_search", column("rowid"))
    if session.get_bind().dialect.name == "sqlite" and await session.scalar(
        _HAS_INDEX, {"name": index.name}
    ):
        # The index finds the rows in the order of their ids. So it is read for one page only.
        statement = statement.join(index, index.c.rowid == model.id).where(_matches(index, part))
        return await _page_by(session, statement, page, order, [index.c.rowid])
    if len(part) >= _MIN_LENGTH:
        found = [each.icontains(part, autoescape=True) for each in columns]
    else:
        found = [each.istartswith(part, autoescape=True) for each in columns]
    return await _page_by(session, statement.where(or_(*found)), page, order, [model.id])


def _matches(index: Any, part: str) -> ColumnElement[bool]:
    phrase = _START * (_MIN_LENGTH - len(part)) + part
    return literal_column(index.name).op("MATCH")('"{}"'.format(phrase.replace('"', '""')))
