"""Lists in pages, by keyset pagination: the last page costs as much as the first one."""

import base64
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    WithJsonSchema,
)
from pydantic_core import to_json
from sqlalchemy import (
    ClauseElement,
    Executable,
    Float,
    Integer,
    Interval,
    Select,
    SmallInteger,
    cast,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.compiler import SQLCompiler

from app.core.errors import FieldError, Invalid
from app.core.types import MAX_ID, Id, Int64

_Item = TypeVar("_Item")

# A cursor contains the value by which a list is ordered, which can be a text.
_MAX_CURSOR_LENGTH = 8192
# More than a column has, and fewer than PostgreSQL refuses.
_MAX_DIGITS = 1000
_BAD_CURSOR = "use the `next` of a page, unchanged"


class Page(BaseModel, Generic[_Item]):
    """A page of a list: `response_model=Page[BookRead]` on a route that returns `Page[Book]`."""

    # A route returns a page of models, from which FastAPI makes a page of schemas.
    model_config = ConfigDict(arbitrary_types_allowed=True, from_attributes=True)

    items: list[_Item]
    next: str | None = Field(description="The cursor of the next page; null on the last page.")


class CountedPage(Page[_Item]):
    """The same with the length of the whole list: `response_model=CountedPage[BookRead]`."""

    total: int


@dataclass(frozen=True)
class PageParams:
    """The page that a request asks for: at most `limit` rows, those that follow the id `after`."""

    limit: int
    after: int
    # In a list with another order than by id: its name, and the value of the row `after`.
    position: tuple[str, object] | None = None


async def paginate(
    session: AsyncSession,
    statement: Select[_Item],
    page: PageParams,
    filters: BaseModel | None = None,
    *,
    order: str = "id",
) -> Page[_Item]:
    """One page of `select(Book)`, in the `order` of the filters if they have one.

    An order is the name of a column, or "-" and that name for the descending one. Each other field
    of the filters is a column that must equal its value; None stands for every value. An index on
    each of these columns keeps a page of a long list fast.
    """
    if statement._order_by_clauses:
        message = "paginate needs an order= instead of order_by(): later pages would be wrong"
        warnings.warn(message, stacklevel=2)
    model: Any = statement.column_descriptions[0]["entity"]
    order = getattr(filters, "order", order)
    statement = _filtered(statement, filters)
    column = getattr(model, order.removeprefix("-"))
    if column.nullable:
        # Nothing comes after NULL, so the list would end there.
        raise ValueError(f"a list can't be in the order of {column}, which is nullable")
    keys = [model.id] if column.key == "id" else [column, model.id]
    return await _page_by(session, statement, page, order, keys)


async def _page_by(
    session: AsyncSession, statement: Select[_Item], page: PageParams, order: str, keys: list[Any]
) -> Page[_Item]:
    """One page in the order of these columns, the last of which is the id."""
    if page.after or order == "id":
        last = tuple_(*_last_row(page, order, keys))
        statement = statement.where(
            tuple_(*keys) < last if order.startswith("-") else tuple_(*keys) > last
        )
    # One row more than the page holds shows whether there is a next page.
    statement = statement.order_by(*(key.desc() if order.startswith("-") else key for key in keys))
    rows: list[Any] = list(await session.scalars(statement.limit(page.limit + 1)))
    items = rows[: page.limit]
    cursor = _encode_cursor(order, items[-1]) if len(rows) > page.limit else None
    return Page[_Item].model_construct(items=items, next=cursor)


async def paginate_counted(
    session: AsyncSession,
    statement: Select[_Item],
    page: PageParams,
    filters: BaseModel | None = None,
    *,
    order: str = "id",
    estimate: bool = False,
) -> CountedPage[_Item]:
    """The same as `paginate`, with the number of rows in all pages.

    To count, the database reads all of them. An estimate is the one of PostgreSQL's planner, which
    reads none. SQLite has none, and counts.
    """
    found = await paginate(session, statement, page, filters, order=order)
    statement = _filtered(statement, filters)
    if estimate and session.get_bind().dialect.name == "postgresql":
        plan = await session.scalar(_Explain(statement))
        total = int(plan[0]["Plan"]["Plan Rows"])
    else:
        total = await session.scalar(select(func.count()).select_from(statement.subquery())) or 0
    return CountedPage[_Item].model_construct(items=found.items, next=found.next, total=total)


def page_before(
    page: PageParams, column: InstrumentedAttribute[datetime], time: datetime
) -> PageParams:
    """The page of a list in the descending order of this column, of the rows before a time.

    It replaces a condition in the statement: SQLite would read all rows between that time and the
    cursor.
    """
    order = f"-{column.key}"
    if page.after and _last_row(page, order, [column, None])[0].value < time:
        return page
    # No row has a smaller id.
    return PageParams(page.limit, 1, (order, time))


class _Explain(Executable, ClauseElement):
    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(_Explain)
def _compile_explain(element: _Explain, compiler: SQLCompiler, **options: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **options)}"


def _filtered(
    statement: Select[_Item], filters: BaseModel | None, exclude: tuple[str, ...] = ("order",)
) -> Select[_Item]:
    """Only the rows that have the values of these filters, apart from the fields in `exclude`."""
    model: Any = statement.column_descriptions[0]["entity"]
    for name, value in filters or ():
        if name not in exclude and value is not None:
            statement = statement.where(getattr(model, name) == value)
    return statement


def _last_row(page: PageParams, order: str, keys: list[Any]) -> list[Any]:
    """The row after which the page begins; Invalid if its cursor is from a list in another order."""
    try:
        if (page.position[0] if page.position else "id") != order:
            raise ValueError
        if len(keys) == 1 or page.position is None:
            return [page.after]
        column = keys[0]
        bits = {SmallInteger: 15, Integer: 31}.get(type(column.type), 63)
        # SQLite stores an interval as a time.
        has_kind = isinstance(column.type, Interval)
        stored = column.type if has_kind else getattr(column.type, "impl_instance", column.type)
        value = TypeAdapter(stored.python_type).validate_python(page.position[1])
        if isinstance(value, datetime) and stored.timezone:
            value = value.astimezone(UTC)
        if isinstance(value, int) and not -(2**bits) <= value < 2**bits:
            raise ValueError
        if isinstance(value, Decimal) and abs(value.adjusted()) > _MAX_DIGITS:
            raise ValueError
    except (ValueError, OverflowError):
        reason = f"Value error, {_BAD_CURSOR}"
        raise Invalid([FieldError(["query", "cursor"], reason, "value_error")]) from None
    last = literal(value, column.type)
    # PostgreSQL would compare a REAL column with a number that has more digits.
    return [cast(last, column.type) if isinstance(column.type, Float) else last, page.after]


def _encode_cursor(order: str, row: Any) -> str:
    last = row.id if order == "id" else [order, getattr(row, order.removeprefix("-")), row.id]
    return base64.urlsafe_b64encode(to_json(last)).decode().rstrip("=")


# The id alone, or the order, the value in its column and the id.
_LAST_ROW: TypeAdapter[Any] = TypeAdapter(
    Annotated[int, Field(ge=0, le=MAX_ID)]
    | tuple[str, Annotated[str, Field(pattern=r"^[^\x00]*$")] | bool | Int64 | FiniteFloat, Id]
)


def _decode_cursor(cursor: str) -> tuple[int, tuple[str, object] | None]:
    """The id, and the position of PageParams."""
    try:
        if len(cursor) > _MAX_CURSOR_LENGTH:
            raise ValueError
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True)
        last = _LAST_ROW.validate_json(text, strict=True)
    except ValueError:
        raise ValueError(_BAD_CURSOR) from None
    if isinstance(last, int):
        return last, None
    order, value, last_id = last
    return last_id, (order, value)


_Cursor = Annotated[
    Any,
    BeforeValidator(_decode_cursor),
    WithJsonSchema({"type": "string", "maxLength": _MAX_CURSOR_LENGTH}),
]


async def get_page_params(
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Annotated[_Cursor | None, Query(description="The `next` of the previous page.")] = None,
) -> PageParams:
    return PageParams(limit, *(cursor or (0, None)))


PageDep = Annotated[PageParams, Depends(get_page_params)]
