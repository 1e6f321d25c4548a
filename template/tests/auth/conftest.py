"""Accounts for the tests, and a way to act as each of them."""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, text
from starlette.routing import BaseRoute

from app.db.engine import synchronous_url
from app.db.session import Database
from app.models.user import User
from app.permissions import PERMISSIONS
from app.security import hash_password
from app.services import rights
from tests.conftest import MakeSettings

PASSWORD = "seven wet otters on a raft"
BOB = {"username": "bob", "email": "bob@example.com", "password": PASSWORD}
ADA = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}

LOGIN = "/api/v1/auth/login"
USERS = "/api/v1/users"
ME = f"{USERS}/me"

MakeUser = Callable[..., int]
LogIn = Callable[..., dict[str, str]]
Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="session")
def password_hash() -> str:
    """Hashing is slow on purpose: once is enough for all the accounts of the tests."""
    return asyncio.run(hash_password(PASSWORD))


@pytest.fixture
def make_user(make_settings: MakeSettings, password_hash: str) -> MakeUser:
    """An account whose password is PASSWORD, with these permissions; returns its id."""

    async def make(username: str, *permissions: str, is_active: bool = True) -> int:
        async with Database(make_settings()) as database, database.writers.begin() as session:
            user = User(
                username=username,
                email=f"{username}@example.com",
                password=password_hash,
                is_active=is_active,
                permissions=await rights.find_permissions(session, permissions),
            )
            session.add(user)
            await session.flush()
            return user.id

    return lambda *names, **changes: asyncio.run(make(*names, **changes))


@pytest.fixture
def log_in(client: TestClient) -> LogIn:
    """The header that a log-in gives."""

    def header(username: str, password: str = PASSWORD) -> dict[str, str]:
        form = {"username": username, "password": password}
        answer = client.post(LOGIN, data=form)
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    return header


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> dict[str, str]:
    """The header of an account that may do everything."""
    make_user("admin", *PERMISSIONS)
    return log_in("admin")


@pytest.fixture
def visitor(make_user: MakeUser, log_in: LogIn) -> dict[str, str]:
    """The header of an account that may do nothing but be itself."""
    make_user("visitor")
    return log_in("visitor")


@pytest.fixture
def rows(database_url: str) -> Iterator[Engine]:
    """A look into the database, beside the app."""
    engine = create_engine(synchronous_url(database_url))
    yield engine
    engine.dispose()


def execute(engine: Engine, statement: str, **values: object) -> list[tuple[object, ...]]:
    with engine.begin() as connection:
        result = connection.execute(text(statement), values)
        return [tuple(row) for row in result] if result.returns_rows else []


def move_clock(rows: Engine, table: str, column: str, seconds: int) -> None:
    """As if what this column says had happened so much earlier or later."""
    if rows.dialect.name == "sqlite":
        shift = f"strftime('%Y-%m-%d %H:%M:%f000', {column}, '{seconds} seconds')"
    else:
        shift = f"{column} + interval '{seconds} seconds'"
    execute(rows, f"UPDATE {table} SET {column} = {shift}")


def operations(app: FastAPI) -> Iterator[Operation]:
    """Every method of every path in the published schema."""
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def needed(operation: dict[str, Any]) -> list[str]:
    schemes = operation.get("security", [])
    return [scope for scheme in schemes for scopes in scheme.values() for scope in scopes]


def filled(path: str) -> str:
    return re.sub(r"{\w+}", "1", path)


def routes_of(router: APIRouter) -> Iterator[BaseRoute]:
    """Every route, also of the routers that it includes."""
    for route in router.routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from routes_of(included)
