"""Lists in pages, by keyset pagination: the last page costs as much as the first one."""

import base64
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.types import MAX_ID

_Item = TypeVar("_Item")


class Page(BaseModel, Generic[_Item]):
    """A page of a list: `response_model=Page[BookRead]` on a route that returns `Page[Book]`."""

    # A route returns a page of models, from which FastAPI makes a page of schemas.
    model_config = ConfigDict(arbitrary_types_allowed=True, from_attributes=True)

    items: list[_Item]
    next: str | None = Field(description="The cursor of the next page; null on the last page.")


@dataclass(frozen=True)
class PageParams:
    """The page that a request asks for: at most `limit` rows, with ids above `after`."""

    limit: int
    after: int


async def paginate(
    session: AsyncSession, statement: Select[_Item], page: PageParams
) -> Page[_Item]:
    """One page of `select(Book)`, in the order of the ids."""
    model: Any = statement.column_descriptions[0]["entity"]
    statement = statement.where(model.id > page.after).order_by(model.id)
    # One row more than the page holds shows whether there is a next page.
    rows: list[Any] = list(await session.scalars(statement.limit(page.limit + 1)))
    return make_page(rows, page)


def make_page(rows: list[_Item], page: PageParams) -> Page[_Item]:
    """The page of a query with another order: up to `page.limit + 1` rows, from its position on."""
    items: list[Any] = rows[: page.limit]
    cursor = _encode_cursor(items[-1].id) if len(rows) > page.limit else None
    return Page[_Item].model_construct(items=items, next=cursor)


def _encode_cursor(last_id: int) -> str:
    return base64.urlsafe_b64encode(str(last_id).encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> int:
    try:
        if len(cursor) > 32:
            raise ValueError
        padded = cursor + "=" * (-len(cursor) % 4)
        return int(base64.b64decode(padded, altchars=b"-_", validate=True))
    except ValueError:
        raise ValueError("use the `next` of a page, unchanged") from None


_Cursor = Annotated[
    int,
    Field(ge=0, le=MAX_ID),
    BeforeValidator(_decode_cursor),
    WithJsonSchema({"type": "string", "maxLength": 32}),
]


async def get_page_params(
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Annotated[_Cursor | None, Query(description="The `next` of the previous page.")] = None,
) -> PageParams:
    return PageParams(limit, cursor or 0)


PageDep = Annotated[PageParams, Depends(get_page_params)]
