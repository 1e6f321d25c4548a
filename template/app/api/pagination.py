"""Pages of a list: keyset pagination, where the last page costs what the first one does."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, Protocol, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema
from sqlalchemy import Select, select

from app.db.base import LARGEST_ID, Base

Item = TypeVar("Item")
Model = TypeVar("Model", bound=Base)


class HasId(Protocol):
    id: int


Row = TypeVar("Row", bound=Base | HasId)


class Page(BaseModel, Generic[Item]):
    """The shape of the answer: `response_model=Page[BookRead]`."""

    items: list[Item]
    next: str | None = Field(description="The cursor of the next page; null on the last.")


@dataclass(frozen=True)
class Slice(Generic[Row]):
    """What a route returns for it: rows, which the response model turns into items."""

    items: Sequence[Row]
    next: str | None


def encode_cursor(last_id: int) -> str:
    return base64.urlsafe_b64encode(str(last_id).encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> int:
    try:
        if len(cursor) > 32:
            raise ValueError
        return int(
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        )
    except ValueError:
        raise ValueError("give back the `next` of a page, unchanged") from None


Cursor = Annotated[
    int,
    Field(ge=0, le=LARGEST_ID),
    BeforeValidator(decode_cursor),
    WithJsonSchema({"type": "string", "maxLength": 32}),
]


@dataclass(frozen=True)
class Paging:
    """Use it twice: `rows = await session.scalars(paging.of(Book))`, `paging.slice(rows.all())`."""

    limit: int
    after: int

    @property
    def rows(self) -> int:
        """How many to ask for: one more than the page has tells whether there is a next one."""
        return self.limit + 1

    def of(self, model: type[Model]) -> Select[Model]:
        """The rows of this page, in order of their ids."""
        return select(model).where(model.id > self.after).order_by(model.id).limit(self.rows)

    def slice(self, rows: Sequence[Row]) -> Slice[Row]:
        items = rows[: self.limit]
        is_last = len(rows) <= self.limit
        return Slice(items, None if is_last else encode_cursor(items[-1].id))


async def get_paging(
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Annotated[Cursor | None, Query(description="The `next` of the page before.")] = None,
) -> Paging:
    return Paging(limit, cursor or 0)


PagingDep = Annotated[Paging, Depends(get_paging)]
