"""A value is stored as the response says, or rejected. SQLite converts some without a word."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, JsonValue
from sqlalchemy import JSON, Engine, MetaData, Numeric
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.api.deps import IdPath, SessionDep
from app.core.resources import add, load, update
from app.core.routing import Router
from app.core.types import NAMING_CONVENTION, Amount, PrimaryKey, StorableJson
from tests.core.routes import with_router, with_tables


class ParcelBase(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)

    id: Mapped[PrimaryKey]


class OldParcel(ParcelBase):
    __tablename__ = "old_parcels"

    price: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    data: Mapped[Any] = mapped_column(JSON)


class ParcelCreate(BaseModel):
    price: Amount = Decimal("1.00")
    data: StorableJson = 0


class ParcelUpdate(BaseModel):
    price: Amount | None = None
    data: StorableJson | None = None


class ParcelRead(BaseModel, from_attributes=True):
    id: int
    price: Decimal
    data: JsonValue


router = Router(prefix="/parcels")


@router.post("", response_model=ParcelRead)
async def create_parcel(data: ParcelCreate, session: SessionDep) -> OldParcel:
    return await add(session, OldParcel(**data.model_dump()))


@router.get("/{parcel_id:id}", response_model=ParcelRead)
async def read_parcel(parcel_id: IdPath, session: SessionDep) -> OldParcel:
    return await load(session, OldParcel, parcel_id)


@router.patch("/{parcel_id:id}", response_model=ParcelRead)
async def update_parcel(parcel_id: IdPath, data: ParcelUpdate, session: SessionDep) -> OldParcel:
    return await update(session, await load(session, OldParcel, parcel_id), data)


@pytest.fixture
def rows(database_url: str) -> Iterator[Engine]:
    with with_tables(database_url, ParcelBase.metadata) as engine:
        yield engine


@pytest.fixture(scope="module")
def shared_app(shared_app: FastAPI) -> FastAPI:
    return with_router(shared_app, router)


@pytest.fixture
def client(app: FastAPI, rows: Engine) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def sent(client: TestClient, field: str, text: str) -> list[tuple[int, Any]]:
    """What POST, GET, PATCH and another GET answer. The text is JSON, as a client writes it."""
    path, body = "/parcels", f'{{"{field}": {text}}}'
    options: dict[str, Any] = {"content": body, "headers": {"Content-Type": "application/json"}}
    created = client.post(path, **options)
    known = created if created.is_success else client.post(path, json={})
    one = f"{path}/{known.json()['id']}"
    read = client.get(one)
    client.patch(one, json={"price": "7.77", "data": "other"})
    changed = client.patch(one, **options)
    answers = [created, read, changed, client.get(one)]
    return [(answer.status_code, answer.json().get(field)) for answer in answers]


LARGE = [str(2**63), str(-(2**63) - 1), "12345678901234567890", f"-1{'0' * 400}", f"1{'0' * 400}"]
# SQLite would round some of these, and make an integer of others.
FLOATS = ["1.0", "-0.0", "0.1", "160.3984171240037", "62778049.14484917", "1e16", "5e-324"]
NUMBERS = [*LARGE, *FLOATS, "6.146279348589314e-30", "1.7976931348623157e308"]
DEEP = '{"a": [' * 40 + "1" + "]}" * 40
# SQLite finds a number in a text, unless it is in quotes, a list or an object.
QUOTED = ['"12"', '"1e5"', '" 0x10"', '"NaN"', '""', '"null"', "true", "false", "[]", "{}"]


@pytest.mark.parametrize(
    "text",
    ["0", "-0", str(2**63 - 1), str(-(2**63)), DEEP, *QUOTED]
    + [f"[{text}]" for text in NUMBERS]
    + [f'{{"a": {text}}}' for text in NUMBERS],
    ids=lambda text: text[:25],
)
def test_a_json_value_is_stored_as_it_was_sent(client: TestClient, text: str) -> None:
    assert sent(client, "data", text) == [(200, json.loads(text))] * 4


def test_null_is_a_json_value(client: TestClient) -> None:
    # A PATCH changes nothing, since the column needs a value.
    assert sent(client, "data", "null") == [
        (200, None),
        (200, None),
        (200, "other"),
        (200, "other"),
    ]


@pytest.mark.parametrize("text", NUMBERS, ids=lambda text: text[:25])
def test_a_json_number_that_sqlite_could_round_is_rejected(client: TestClient, text: str) -> None:
    rejected = (422, None)

    assert sent(client, "data", text) == [rejected, (200, 0), rejected, (200, "other")]


@pytest.mark.parametrize("depth", [41, 49, 50, 127, 128, 400])
def test_a_json_value_too_deep_for_a_response_is_rejected(client: TestClient, depth: int) -> None:
    text = '{"a": [' * depth + "1" + "]}" * depth

    assert [status for status, _ in sent(client, "data", text)] == [422, 200, 422, 200]


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ('"3"', "3.00"),
        ('"3.5"', "3.50"),
        ('"3.500"', "3.50"),
        ('"+3."', "3.00"),
        ('".5"', "0.50"),
        ('"007"', "7.00"),
        ('"-0.00"', "0.00"),
        ('"-9999999999.99"', "-9999999999.99"),
        ("3", "3.00"),
        ("-0.0", "0.00"),
        ("1e2", "100.00"),
        ("9999999999.99", "9999999999.99"),
    ],
)
def test_an_amount_is_answered_as_it_is_stored(client: TestClient, text: str, stored: str) -> None:
    assert sent(client, "price", text) == [(200, stored)] * 4


@pytest.mark.parametrize(
    "amount",
    [
        *["1e2", "1E+2", "1_000", "1,5", "５", "٣", " 3", "3\n", "", ".", "-", "NaN", "Infinity"],
        *["0x1", "0.001", "10000000000", "1" * 10_000, f"0.{'0' * 400}1"],
    ],
    ids=lambda text: ascii(text)[:25],
)
def test_an_amount_is_plain_text(client: TestClient, amount: str) -> None:
    rejected = (422, None)

    assert sent(client, "price", json.dumps(amount)) == [
        rejected,
        (200, "1.00"),
        rejected,
        (200, "7.77"),
    ]
