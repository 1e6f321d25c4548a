"""What the routes of a resource have in common: a row or a 404, a new row, a change."""

import re
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import Select, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, object_mapper

from app.core.errors import Conflict, NotFound

_Row = TypeVar("_Row", bound=DeclarativeBase)


async def load(session: AsyncSession, model: type[_Row] | Select[_Row], row_id: int) -> _Row:
    """`await load(session, Book, book_id)`: the row with this id, or NotFound.

    A statement can add options and conditions: `select(Book).options(selectinload(Book.tags))`.
    """
    if isinstance(model, Select):
        entity = model.column_descriptions[0]["entity"]
        row = await session.scalar(model.where(entity.id == row_id))
    else:
        entity = model
        row = await session.scalar(_by_id(model), {"row_id": row_id})
    if row is None:
        raise NotFound(f"{_words(entity)} not found.")
    return row


@cache
def _by_id(model: Any) -> Select[Any]:
    """Built once, since that costs more than SQLite takes to find the row."""
    return select(model).where(model.id == bindparam("row_id"))


def _words(model: type[Any]) -> str:
    return re.sub(r"(?<=[a-z\d])(?=[A-Z])", " ", model.__name__).capitalize()


async def load_all(session: AsyncSession, model: type[_Row], ids: list[int]) -> list[_Row]:
    """The rows with these ids, which a row will refer to. A missing one is a Conflict."""
    entity: Any = model
    rows = [*await session.scalars(select(model).where(entity.id.in_(ids)).order_by(entity.id))]
    if missing := {*ids} - {row.id for row in rows}:
        raise Conflict(f"{_words(model)} {min(missing)} does not exist.")
    return rows


async def add(session: AsyncSession, row: _Row) -> _Row:
    """Store a new row, which then has its id and the defaults of the database."""
    session.add(row)
    await session.flush()
    return row


async def update(
    session: AsyncSession, row: _Row, data: BaseModel, *, exclude: set[str] | None = None
) -> _Row:
    """Change the columns that the request names, apart from those in `exclude`.

    A null changes nothing in a column that cannot be null.
    """
    columns = object_mapper(row).columns
    for name, value in data.model_dump(exclude_unset=True, exclude=exclude).items():
        if value is not None or columns[name].nullable:
            setattr(row, name, value)
    await session.flush()
    return row
