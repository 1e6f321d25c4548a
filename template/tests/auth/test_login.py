"""Logging in, and passwords."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine

from tests.auth.conftest import (
    ADA,
    LOGIN,
    ME,
    NEW_PASSWORD,
    PASSWORD,
    USERS,
    Headers,
    LogIn,
    MakeUser,
    execute,
)

PASSWORD_PATH = "/api/v1/auth/password"
WRONG = "not the password of ada"


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


def log_in_at_once(client: TestClient, *credentials: tuple[str, str]) -> list[Response]:
    """A failed login takes half a second, on purpose. These wait together."""
    forms = [{"username": name, "password": password} for name, password in credentials]
    with ThreadPoolExecutor(len(forms)) as pool:
        return [*pool.map(lambda form: client.post(LOGIN, data=form), forms)]


@pytest.mark.parametrize("username", ["ada", "ada@example.com", " ADA "])
def test_login_returns_a_token(client: TestClient, make_user: MakeUser, username: str) -> None:
    make_user("ada")

    response = client.post(LOGIN, data={"username": username, "password": PASSWORD})

    assert response.status_code == 200
    assert response.json()["token_type"] == "bearer"
    me = client.get(ME, headers=bearer(response.json()["access_token"]))
    assert me.json()["username"] == "ada"


def test_every_failed_login_looks_the_same(client: TestClient, make_user: MakeUser) -> None:
    """Otherwise an attacker could find out which users there are."""
    make_user("ada")
    make_user("inactive", is_active=False)

    responses = log_in_at_once(
        client, ("ada", WRONG), ("inactive", PASSWORD), ("unknown", PASSWORD)
    )

    assert [response.status_code for response in responses] == [401, 401, 401]
    assert {response.json()["detail"] for response in responses} == {
        "Invalid username or password."
    }


def test_login_is_a_form_without_scopes(client: TestClient, make_user: MakeUser) -> None:
    make_user("ada")
    credentials = {"username": "ada", "password": PASSWORD}

    assert client.post(LOGIN, json=credentials).status_code == 415
    assert client.post(LOGIN, data={**credentials, "scope": "users:read"}).status_code == 422


def test_failed_logins_are_slowed_down(client: TestClient, make_user: MakeUser) -> None:
    make_user("ada")

    responses = log_in_at_once(client, *[("ada", WRONG)] * 5)

    assert [response.status_code for response in responses] == [401] * 5
    # A correct password has to wait, too.
    for password in (WRONG, PASSWORD):
        refused = client.post(LOGIN, data={"username": "ada", "password": password})
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) > 0


def test_a_correct_password_resets_the_count(client: TestClient, make_user: MakeUser) -> None:
    make_user("ada")

    for _ in range(2):
        responses = log_in_at_once(client, *[("ada", WRONG)] * 3)
        assert [response.status_code for response in responses] == [401] * 3
        correct = client.post(LOGIN, data={"username": "ada", "password": PASSWORD})
        assert correct.status_code == 200


def test_password_is_stored_as_a_hash(client: TestClient, admin: Headers, rows: Engine) -> None:
    client.post(USERS, json=ADA, headers=admin)

    ((stored,),) = execute(rows, "SELECT password FROM users WHERE username = 'ada'")

    assert stored.startswith("$argon2id$")


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("a short one", "Use at least 15 characters"),
        ("passwordpassword", "too easy to guess"),
        ("here comes ada again", "Leave out your username"),
    ],
)
def test_weak_password_is_rejected(
    client: TestClient, admin: Headers, password: str, reason: str
) -> None:
    response = client.post(USERS, json={**ADA, "password": password}, headers=admin)

    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["loc"] == ["body", "password"]
    assert reason in error["msg"]


def test_new_password_ends_every_session(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    here, elsewhere = log_in("ada"), log_in("ada")
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}

    response = client.post(PASSWORD_PATH, json=change, headers=here)

    assert client.get(ME, headers=bearer(response.json()["access_token"])).status_code == 200
    assert client.get(ME, headers=here).status_code == 401
    assert client.get(ME, headers=elsewhere).status_code == 401
    logins = [
        client.post(LOGIN, data={"username": "ada", "password": password}).status_code
        for password in (PASSWORD, NEW_PASSWORD)
    ]
    assert logins == [401, 200]


def test_new_password_needs_the_current_one(client: TestClient, visitor: Headers) -> None:
    change = {"current_password": WRONG, "new_password": NEW_PASSWORD}

    response = client.post(PASSWORD_PATH, json=change, headers=visitor)

    assert response.status_code == 403
    assert response.json()["detail"] == "The current password is wrong."
