"""Logging in: what the response says, and what the form may hold."""

from collections import Counter

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from app.auth import passwords
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
