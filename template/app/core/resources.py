"""What the routes of a resource have in common: a row or a 404, a new row, a change."""

import re
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, object_mapper

from app.core.errors import NotFound

_Row = TypeVar("_Row", bound=DeclarativeBase)


async def load(session: AsyncSession, model: type[_Row] | Select[_Row], row_id: int) -> _Row:
    """`await load(session, Book, book_id)`: the row with this id, or NotFound.

    A statement can add options and conditions: `select(Book).options(selectinload(Book.tags))`.
    """
    statement = model if isinstance(model, Select) else select(model)
    entity: Any = statement.column_descriptions[0]["entity"]
    row = await session.scalar(statement.where(entity.id == row_id))
    if row is None:
        words = re.sub(r"(?<=[a-z\d])(?=[A-Z])", " ", entity.__name__)
        raise NotFound(f"{words.capitalize()} not found.")
    return row


async def add(session: AsyncSession, row: _Row) -> _Row:
    """Store a new row, which then has its id and the defaults of the database."""
    session.add(row)
    await session.flush()
    return row


async def update(session: AsyncSession, row: _Row, data: BaseModel) -> _Row:
    """Change what the request names. A null leaves a column alone that cannot be null."""
    columns = object_mapper(row).columns
    for name, value in data.model_dump(exclude_unset=True).items():
        if value is not None or columns[name].nullable:
            setattr(row, name, value)
    await session.flush()
    return row
