"""Logging in: what the response says, and what the form may hold."""

import time
from collections import Counter

import pytest
from fastapi.testclient import TestClient
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import Engine

from app.auth import passwords, service
from tests.auth_internals.helpers import LOGIN, PASSWORD, WRONG, MakeUser, execute

FORM = {"username": "ada", "password": PASSWORD}


@pytest.mark.parametrize("username", ["admin", "root", "administrator", "test"])
def test_a1_there_is_no_default_user(client: TestClient, rows: Engine, username: str) -> None:
    for password in ("admin", "password", "changeme", ""):
        form = {"username": username, "password": password}
        assert client.post(LOGIN, data=form).status_code in {401, 422}

    assert execute(rows, "SELECT count(*) FROM users") == [(0,)]


def test_a4_a5_a_failed_login_does_not_say_why(
    client: TestClient, make_user: MakeUser, verified: Counter[str]
) -> None:
    """Not by its text, nor by its headers, nor by the number of hashes that it verifies."""
    make_user("ada")
    make_user("gone", is_active=False)

    responses = []
    for username, password in [
        ("ada", WRONG),
        ("nobody", PASSWORD),
        ("nobody@example.com", PASSWORD),
        ("no such \x1b name", PASSWORD),
        ("gone", PASSWORD),
    ]:
        before = verified.total()
        responses.append(client.post(LOGIN, data={"username": username, "password": password}))
        assert verified.total() == before + 1

    # Those who do not exist: a real hash was verified for them, too.
    assert verified[passwords.DUMMY_HASH] == 3
    bodies = {response.text.replace(response.headers["x-request-id"], "") for response in responses}
    headers = {
        tuple((name, value) for name, value in response.headers.items() if name != "x-request-id")
        for response in responses
    }
    assert [response.status_code for response in responses] == [401] * 5
    assert len(bodies) == len(headers) == 1


@pytest.mark.usefixtures("real_hashing")
def test_a5_the_duration_of_a_failed_login_does_not_say_why(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    stored = {
        "weak": Argon2Hasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD),
        "strong": Argon2Hasher(time_cost=3, memory_cost=32_768, parallelism=1).hash(PASSWORD),
        "current": passwords.HASHER.hash(PASSWORD),
        "gone": passwords.HASHER.hash(PASSWORD),
        "without": "",
        "broken": "$argon2id$v=19$m=8,t=1,p=1$broken$broken",
    }
    for name, hashed in stored.items():
        make_user(name, is_active=name != "gone")
        values = {"name": name, "hashed": hashed}
        execute(rows, "UPDATE users SET password = :hashed WHERE username = :name", **values)

    def seconds(name: str, password: str) -> float:
        execute(rows, "DELETE FROM throttles")
        started = time.monotonic()
        form = {"username": name, "password": password}
        assert client.post(LOGIN, data=form).status_code == 401
        return time.monotonic() - started

    unknown = ("nobody", "nobody@example.com", "no such name, surely", "n" * 1000)
    for failure in [*((name, WRONG) for name in (*stored, *unknown)), ("gone", PASSWORD)]:
        # The machine may be busy, so one of several is enough.
        measured = [seconds(*failure)]
        while measured[-1] > service._FAILURE_SECONDS * 1.3 and len(measured) < 10:
            measured.append(seconds(*failure))
        assert service._FAILURE_SECONDS <= min(measured) < service._FAILURE_SECONDS * 1.3, failure


def test_i3_the_body_of_a_login_is_small(client: TestClient) -> None:
    response = client.post(LOGIN, data={"username": "ada", "password": "x" * 20_000})

    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


def test_a_login_is_never_redirected(client: TestClient) -> None:
    assert client.post(f"{LOGIN}/", data=FORM, follow_redirects=False).status_code == 404


def test_a_login_accepts_no_scope(client: TestClient) -> None:
    assert client.post(LOGIN, data={**FORM, "scope": "users:read"}).status_code == 422


def test_i5_a_login_is_a_form_and_no_json(client: TestClient) -> None:
    assert client.post(LOGIN, json=FORM).status_code == 415


def test_i5_a_login_is_no_multipart_form(client: TestClient) -> None:
    """Each of its parts can name an encoding, and some are slow to decode."""
    parts = {"username": (None, "ada"), "password": (None, PASSWORD)}
    file = {"username": ("ada", b"x" * 10_000)}

    assert client.post(LOGIN, files=parts).status_code == 415
    assert client.post(LOGIN, files=file).status_code == 415
