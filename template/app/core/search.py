"""Search for part of a text, in a list that `paginate` returns.

On SQLite, a full-text index of three-letter pieces (trigrams) finds the rows, if a migration has
created one: `{table}_search`, with the columns after _START each. On PostgreSQL, LIKE uses an index
of pg_trgm by itself. Without an index, the results are the same, but every row is read.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, column, literal_column, or_, select, table, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.core.pagination import PageParams

# The shortest text that an index of trigrams can find. A shorter one is only found at the start.
_MIN_LENGTH = 3
# ASCII's unit separator, which no ShortText contains. Two of them precede the text of a column, so
# that one or two letters at its start make a trigram.
_START = "\x1f"

_HAS_INDEX = text("SELECT sql LIKE 'CREATE VIRTUAL%' FROM sqlite_master WHERE name = :name")


async def contains(
    session: AsyncSession,
    columns: Sequence[InstrumentedAttribute[str]],
    part: str,
    page: PageParams,
) -> ColumnElement[bool]:
    """`statement.where(await contains(session, [Book.title], q, page))`: the rows of one page.

    A part of one or two letters is only found at the start of a column.
    """
    is_short = len(part) < _MIN_LENGTH
    model = columns[0].class_
    name = f"{model.__tablename__}_search"
    if session.get_bind().dialect.name == "sqlite" and await session.scalar(
        _HAS_INDEX, {"name": name}
    ):
        rowid: ColumnElement[int] = column("rowid")
        phrase = (_START * (_MIN_LENGTH - len(part)) if is_short else "") + part
        found = (
            select(rowid)
            .select_from(table(name))
            .where(literal_column(name).op("MATCH")('"{}"'.format(phrase.replace('"', '""'))))
        )
        # Only the rows of this page, which the index finds in the order of their ids.
        found = found.where(rowid > page.after).order_by(rowid).limit(page.limit + 1)
        ids: ColumnElement[int] = model.id
        return ids.in_(found)
    if is_short:
        return or_(*(each.startswith(part, autoescape=True) for each in columns))
    return or_(*(each.contains(part, autoescape=True) for each in columns))
