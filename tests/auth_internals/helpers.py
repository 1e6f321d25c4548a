"""What the tests of the login share: names, requests, and a look into the database."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, bindparam, insert, text

from app.auth.authentication import hash_token
from app.auth.models import OneTimeToken, Purpose
from app.core.types import UtcDateTime

PASSWORD = "seven wet otters on a raft"
NEW_PASSWORD = "nine dry owls on a roof"
WRONG = "wrong password, this one"
EASY = "passwordpassword"
ADA = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
BOB = {"username": "bob", "email": "bob@example.com", "password": PASSWORD}

LOGIN = "/api/v1/auth/login"
LOGOUT = "/api/v1/auth/logout"
CHANGE_PASSWORD = "/api/v1/auth/password"
SESSIONS = "/api/v1/auth/sessions"
USERS = "/api/v1/users"
ME = f"{USERS}/me"
PERMISSIONS = "/api/v1/permissions"

MakeUser = Callable[..., int]
LogIn = Callable[..., dict[str, str]]
Operation = tuple[str, str, dict[str, Any]]
# Their texts and parameters.
Statements = list[tuple[str, Any]]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def token_of(header: dict[str, str]) -> str:
    return header["Authorization"].removeprefix("Bearer ")


def header_of(client: TestClient, username: str, password: str = PASSWORD) -> dict[str, str]:
    """The header of a new session of this user."""
    response = client.post(LOGIN, data={"username": username, "password": password})
    assert response.status_code == 200, response.text
    return bearer(response.json()["access_token"])


def grant(
    client: TestClient, header: dict[str, str], user_id: int, *names: str
) -> tuple[int, list[str]]:
    """Replace the permissions of a user; the status, and the permissions afterwards."""
    path = f"{USERS}/{user_id}/permissions"
    response = client.put(path, json={"permissions": names}, headers=header)
    return response.status_code, [p["name"] for p in response.json().get("permissions", [])]


def execute(engine: Engine, statement: str, **values: object) -> list[tuple[object, ...]]:
    # A driver would write a time in another form, or warn of it.
    times = [
        bindparam(n, type_=UtcDateTime()) for n, v in values.items() if isinstance(v, datetime)
    ]
    with engine.begin() as connection:
        result = connection.execute(text(statement).bindparams(*times), values)
        return [tuple(row) for row in result] if result.returns_rows else []


def move_clock(rows: Engine, table: str, column: str, seconds: int) -> None:
    """Pretend that the times in a column were earlier or later."""
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


def fill(path: str, value: str = "1") -> str:
    return re.sub(r"{\w+}", value, path)


class Mail(NamedTuple):
    to: str
    template: str
    text: str


def mails(rows: Engine, *, about_logins: bool = False) -> list[Mail]:
    """The emails that are queued, in order; those about new logins only if they are wanted."""
    query = "SELECT recipient, template, variables FROM outgoing_mails ORDER BY id"
    found = [Mail(*map(str, row)) for row in execute(rows, query)]
    return [mail for mail in found if about_logins == (mail.template == "new_login")]


def token_in(mail: Mail) -> str:
    found = re.search(r"[?#]token=([\w-]{43})\b", mail.text)
    assert found, mail
    return found[1]


def add_links(rows: Engine) -> None:
    """Add a link of each purpose, for bob (2) or a new visitor; its token is the purpose."""
    expires_at = datetime.now(UTC) + timedelta(minutes=10)
    emails = {Purpose.REGISTER: "ada@example.com", Purpose.CHANGE_EMAIL: "robert@example.com"}
    values = [
        {
            "purpose": purpose,
            "user_id": None if purpose is Purpose.REGISTER else 2,
            "token_hash": hash_token(purpose),
            "email": emails.get(purpose, "bob@example.com"),
            "expires_at": expires_at,
        }
        for purpose in Purpose
    ]
    with rows.begin() as connection:
        connection.execute(insert(OneTimeToken), values)
