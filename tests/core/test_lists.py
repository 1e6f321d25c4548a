"""Lists in any order, and what the routes of a resource have in common."""

import base64
import json
import re
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from fastapi import FastAPI, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict
from sqlalchemy import REAL, DateTime, Engine, MetaData, Numeric, String, event, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.api.deps import IdPath, PageDep, SessionDep
from app.core.pagination import CountedPage, Page, paginate, paginate_counted
from app.core.resources import add, load, load_all, update
from app.core.routing import Router
from app.core.types import NAMING_CONVENTION, Int32, Int64, PrimaryKey, Timestamp, UtcDateTime
from tests.core.routes import with_router, with_tables

Kind = Literal["big", "small"]


class ShelfBase(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {datetime: UtcDateTime}  # noqa: RUF012

    id: Mapped[PrimaryKey]


class OldShelf(ShelfBase):
    __tablename__ = "old_shelves"

    name: Mapped[str] = mapped_column(String(255), unique=True)
    width: Mapped[int] = mapped_column(index=True)
    weight: Mapped[float] = mapped_column(index=True)
    price: Mapped[Decimal] = mapped_column(Numeric(12, 2), index=True)
    built: Mapped[date] = mapped_column(index=True)
    moved_at: Mapped[datetime] = mapped_column(index=True)
    code: Mapped[uuid.UUID] = mapped_column(unique=True)
    kind: Mapped[Kind] = mapped_column(index=True)
    is_full: Mapped[bool] = mapped_column(index=True, server_default="0")
    height: Mapped[float] = mapped_column(REAL, index=True)
    opens: Mapped[datetime] = mapped_column(DateTime, index=True)
    lent_for: Mapped[timedelta] = mapped_column(index=True)
    note: Mapped[str | None] = mapped_column(String(255), index=True)


ORDERS = ["id", "name", "width", "weight", "price", "built", "moved_at", "code", "kind", "is_full"]
ORDERS += ["height", "opens", "lent_for"]


class ShelfFilters(BaseModel):
    order: str = "-id"
    kind: Kind | None = None
    width: int | None = None


class ShelfUpdate(BaseModel):
    width: int | None = None
    note: str | None = None


class ShelfRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    width: int
    note: str | None


class Numbers(BaseModel):
    small: Int32 = 0
    large: Int64 = 0
    at: Timestamp | None = None


router = Router(prefix="/shelves")


@router.get("", response_model=Page[ShelfRead])
async def list_shelves(
    filters: Annotated[ShelfFilters, Query()], page: PageDep, session: SessionDep
) -> Page[OldShelf]:
    return await paginate(session, select(OldShelf), page, filters)


@router.get("/ordered", response_model=Page[ShelfRead])
async def list_ordered_shelves(page: PageDep, session: SessionDep) -> Page[OldShelf]:
    return await paginate(session, select(OldShelf).order_by(OldShelf.width), page)


@router.get("/counted/{kind_of_total}", response_model=CountedPage[ShelfRead])
async def count_shelves(
    kind_of_total: str,
    filters: Annotated[ShelfFilters, Query()],
    page: PageDep,
    session: SessionDep,
) -> CountedPage[OldShelf]:
    estimate = kind_of_total == "estimated"
    return await paginate_counted(session, select(OldShelf), page, filters, estimate=estimate)


@router.post("/numbers")
async def read_numbers(data: Numbers) -> Numbers:
    return data


@router.post("/{width}", response_model=ShelfRead)
async def create_shelf(width: int, session: SessionDep) -> OldShelf:
    return await add(session, make_shelf(width))


@router.get("/{shelf_id:id}", response_model=ShelfRead)
async def read_shelf(shelf_id: IdPath, session: SessionDep) -> OldShelf:
    return await load(session, OldShelf, shelf_id)


@router.get("/several")
async def read_several(session: SessionDep, ids: Annotated[list[int], Query()] = []) -> list[int]:  # noqa: B006
    return [row.id for row in await load_all(session, OldShelf, ids)]


@router.get("/small/{shelf_id:id}", response_model=ShelfRead)
async def read_small_shelf(shelf_id: IdPath, session: SessionDep) -> OldShelf:
    return await load(session, select(OldShelf).where(OldShelf.kind == "small"), shelf_id)


@router.patch("/{shelf_id:id}", response_model=ShelfRead)
async def update_shelf(shelf_id: IdPath, data: ShelfUpdate, session: SessionDep) -> OldShelf:
    return await update(session, await load(session, OldShelf, shelf_id), data)


def make_shelf(number: int) -> OldShelf:
    """Every third one is equal in all that need not be unique."""
    third = number // 3
    return OldShelf(
        name=f"Größe {third} 🐎 {number}",
        width=third,
        weight=third / 3,
        price=Decimal(third) / 4,
        built=date(2026, 1, 1) + timedelta(days=third),
        moved_at=datetime(2026, 1, 1, 12, 0, 0, third, tzinfo=timezone(timedelta(hours=9))),
        code=uuid.uuid4(),
        kind="small" if third % 2 else "big",
        is_full=number > 5,
        height=third / 3,
        opens=datetime(2026, 1, 1, 12, 0, 0, third),
        lent_for=timedelta(days=third - 2, microseconds=1),
    )


@pytest.fixture
def rows(database_url: str) -> Iterator[Engine]:
    with with_tables(database_url, ShelfBase.metadata) as engine:
        yield engine


@pytest.fixture(scope="module")
def shared_app(shared_app: FastAPI) -> FastAPI:
    return with_router(shared_app, router)


@pytest.fixture
def listed(app: FastAPI, rows: Engine) -> Iterator[TestClient]:
    """An empty list."""
    with TestClient(app) as client:
        yield client


@pytest.fixture
def client(listed: TestClient) -> TestClient:
    for number in range(11):
        assert listed.post(f"/shelves/{number}").status_code == 200
    return listed


def read_all(client: TestClient, **params: str | int) -> list[int]:
    """The ids of a whole list, page by page."""
    found: list[int] = []
    cursor: str | None = None
    while len(found) < 50:
        query = {**params, "limit": 2, **({"cursor": cursor} if cursor else {})}
        response = client.get("/shelves", params=query)
        assert response.status_code == 200, response.json()
        found += [item["id"] for item in response.json()["items"]]
        cursor = response.json()["next"]
        if cursor is None:
            break
    return found


def encode(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not hasattr(time, "tzset"):
        pytest.skip("Windows has one time zone for all processes")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
def test_a_list_has_each_row_once_in_every_order(client: TestClient, rows: Engine) -> None:
    for order in ORDERS:
        column = getattr(OldShelf, order)
        with rows.connect() as connection:
            expected = [*connection.scalars(select(OldShelf.id).order_by(column, OldShelf.id))]

        assert len(expected) == 11
        assert read_all(client, order=order) == expected, order
        assert read_all(client, order=f"-{order}") == expected[::-1], order


@pytest.mark.parametrize("path", ["exact", "estimated"])
def test_a_list_can_say_how_long_it_is(client: TestClient, rows: Engine, path: str) -> None:
    if rows.dialect.name == "postgresql":
        with rows.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE old_shelves")
    url = f"/shelves/counted/{path}"

    first = client.get(url, params={"limit": 2, "kind": "small"}).json()
    second = client.get(url, params={"limit": 9, "kind": "small", "cursor": first["next"]}).json()

    assert first["total"] == second["total"] == len(first["items"] + second["items"]) == 5
    assert client.get(url).json()["total"] == 11


def test_a_list_goes_on_after_the_row_of_its_cursor_is_deleted(
    client: TestClient, rows: Engine
) -> None:
    first = client.get("/shelves", params={"order": "name", "limit": 1}).json()
    with rows.begin() as connection:
        connection.execute(
            OldShelf.metadata.tables["old_shelves"].delete().where(OldShelf.width == 0)
        )

    second = client.get("/shelves", params={"order": "name", "cursor": first["next"]}).json()

    assert len(second["items"]) == 8


def test_a_list_can_be_filtered_by_its_columns(client: TestClient) -> None:
    assert len(read_all(client, kind="small")) == 5
    assert read_all(client, kind="small", width=1, order="name") == [4, 5, 6]
    assert read_all(client, kind="small", width=0) == []


@pytest.mark.parametrize(
    "cursor",
    [
        "!",
        encode(b"x" * 6200),
        encode(b"\xff"),
        encode(b"[" * 6000),
        encode(b'["name", NaN, 1]'),
        encode(-1),
        encode(2**63),
        encode(True),
        encode({}),
        encode(["name", 1, 1]),
        encode(["name", "a\0", 1]),
        encode(["name", "\ud800", 1]),
        encode(["name", [], 1]),
        encode(["name", None, 1]),
        encode(["name", "a", 2**63]),
        encode(["name", "a", "1"]),
        encode(["name", "a", True]),
        encode(["width", 2**63, 1]),
        encode(["width", 2**31, 1]),
        encode(["width", 1e300, 1]),
        encode(["weight", 10**400, 1]),
        encode(b'["weight", 1e999, 1]'),
        encode(["price", "NaN", 1]),
        encode(["price", "1e999999", 1]),
        encode(["price", "1e-999999", 1]),
        encode(["built", "2026-02-30", 1]),
        encode(["moved_at", "0001-01-01T00:00:00+14:00", 1]),
        encode(["moved_at", "9999-12-31T23:59:59-14:00", 1]),
        encode(["code", "1", 1]),
    ],
    ids=range(29),
)
def test_a_cursor_that_no_page_gave_is_a_422(listed: TestClient, cursor: str) -> None:
    found = re.search(rb'"(\w+)"', base64.urlsafe_b64decode(cursor + "==="))
    order = found[1].decode() if found else "name"

    response = listed.get("/shelves", params={"order": order, "cursor": cursor})

    assert response.status_code == 422
    assert response.json()["errors"] == [
        {
            "loc": ["query", "cursor"],
            "msg": "Value error, use the `next` of a page, unchanged",
            "type": "value_error",
        }
    ]


@pytest.mark.parametrize(
    "position",
    [
        ["weight", 1.7e308],
        ["weight", -(2**63)],
        ["price", "1e17"],
        ["kind", "tiny"],
        ["is_full", 1],
    ],
    ids=str,
)
def test_a_value_that_no_row_has_is_a_position_too(
    listed: TestClient, position: list[object]
) -> None:
    params = {"order": str(position[0]), "cursor": encode([*position, 1])}

    assert listed.get("/shelves", params=params).status_code == 200


@pytest.mark.parametrize(
    ("order", "other"), [("name", "-name"), ("name", "id"), ("id", "-id"), ("-id", "id")]
)
def test_a_cursor_of_another_order_is_a_422(client: TestClient, order: str, other: str) -> None:
    first = client.get("/shelves", params={"order": order, "limit": 1}).json()
    params = {"order": other, "cursor": first["next"]}

    assert client.get("/shelves", params=params).status_code == 422


def test_an_order_that_would_lose_rows_is_a_bug(
    listed: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert listed.get("/shelves", params={"order": "note"}).status_code == 500
    assert "in the order of OldShelf.note, which is nullable" in caplog.text


def test_an_order_of_the_statement_is_warned_about(listed: TestClient) -> None:
    with pytest.warns(UserWarning, match="needs an order="):
        listed.get("/shelves/ordered")


def test_no_page_reads_a_whole_table_or_sorts_it(client: TestClient, rows: Engine) -> None:
    """What a filter finds may be sorted: an index on both columns would avoid even that."""
    if rows.dialect.name != "sqlite":
        pytest.skip("so small a table is read whole by PostgreSQL")
    statements: list[tuple[str, Any]] = []
    engine = client.app.state.database.engines["reading"]  # type: ignore[attr-defined]
    listen = event.listens_for(engine, "before_cursor_execute")
    listen(lambda *arguments: statements.append(arguments[2:4]))
    for order in [*ORDERS, *(f"-{order}" for order in ORDERS)]:
        for filters in ({}, {"width": 1}):
            params: dict[str, str | int] = {"order": order, "limit": 1, **filters}
            cursor = client.get("/shelves", params=params).json()["next"]
            assert cursor
            client.get("/shelves", params={**params, "cursor": cursor})

    assert len(statements) == 8 * len(ORDERS)
    with rows.connect() as connection:
        for statement, values in statements:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            steps = " / ".join(str(step[-1]) for step in plan)
            is_filtered, by_id = "width = ?" in statement, "ORDER BY old_shelves.id" in statement
            # The rows of a table are in the order of their ids.
            assert by_id or not re.search("SCAN old_shelves(?! USING INDEX)", steps), steps
            assert is_filtered or "TEMP B-TREE" not in steps, steps
            assert not is_filtered or "SEARCH" in steps, steps


def test_a_missing_row_is_a_404_that_names_its_kind(client: TestClient) -> None:
    response = client.get("/shelves/99")

    assert response.status_code == 404
    assert response.json()["detail"] == "Old shelf not found."
    assert client.get("/shelves/1").json()["id"] == 1
    assert client.get("/shelves/small/1").status_code == 404
    assert client.get("/shelves/small/4").status_code == 200


def test_rows_to_refer_to_are_loaded_or_a_conflict(client: TestClient) -> None:
    assert client.get("/shelves/several", params={"ids": [3, 1, 3]}).json() == [1, 3]
    assert client.get("/shelves/several").json() == []

    missing = client.get("/shelves/several", params={"ids": [1, 99, 98]})

    assert missing.status_code == 409
    assert missing.json()["detail"] == "Old shelf 98 does not exist."


def test_an_update_changes_what_it_names(client: TestClient) -> None:
    assert client.patch("/shelves/1", json={"note": "new"}).json()["note"] == "new"

    changed = client.patch("/shelves/1", json={"width": 7}).json()
    cleared = client.patch("/shelves/1", json={"width": None, "note": None}).json()

    assert (changed["width"], changed["note"]) == (7, "new")
    assert (cleared["width"], cleared["note"]) == (7, None)


@pytest.mark.parametrize(
    ("field", "value", "is_valid"),
    [
        ("small", 2**31 - 1, True),
        ("small", 2**31, False),
        ("large", -(2**63), True),
        ("large", 2**63, False),
        ("at", "2026-01-01T00:00:00+09:00", True),
        ("at", "2026-01-01T00:00:00", False),
        ("at", "0001-01-01T00:00:00+14:00", False),
        ("at", "9999-12-31T23:59:59-14:00", False),
        ("at", 0, False),
        ("at", 1e3, False),
        ("at", "1767225600", False),
    ],
)
def test_a_field_accepts_what_every_database_can_store(
    client: TestClient, field: str, value: object, is_valid: bool
) -> None:
    response = client.post("/shelves/numbers", json={field: value})

    assert response.status_code == (200 if is_valid else 422)
    assert UtcDateTime().process_bind_param(None, sqlite.dialect()) is None
    if field == "at" and is_valid:
        assert datetime.fromisoformat(response.json()[field]) == datetime(
            2025, 12, 31, 15, tzinfo=UTC
        )
