"""Login sessions: how tokens are checked, and how sessions end."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, update

from app.auth.models import LoginSession
from tests.auth.conftest import ME, USERS, Headers, LogIn, MakeUser, execute

SESSIONS = "/api/v1/auth/sessions"
LOGOUT = "/api/v1/auth/logout"


def move_back(rows: Engine, column: str, by: timedelta) -> None:
    """Change when every login session began, or was last used."""
    execute(rows, update(LoginSession).values({column: datetime.now(UTC) - by}))


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer unknown"}, {"Authorization": "Basic YWRhOnBhc3N3b3Jk"}],
    ids=["none", "unknown", "basic"],
)
def test_without_a_valid_token_the_answer_is_401(client: TestClient, headers: Headers) -> None:
    response = client.get(ME, headers=headers)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_tokens_are_stored_as_hashes(visitor: Headers, rows: Engine) -> None:
    token = visitor["Authorization"].removeprefix("Bearer ")

    ((stored,),) = execute(rows, "SELECT token_hash FROM sessions")

    assert stored not in token
    assert token not in stored


def test_logout_ends_only_this_session(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    here, elsewhere = log_in("ada"), log_in("ada")

    assert client.post(LOGOUT, headers=here).status_code == 204

    assert client.get(ME, headers=here).status_code == 401
    assert client.get(ME, headers=elsewhere).status_code == 200


def test_users_see_their_sessions(client: TestClient, make_user: MakeUser, log_in: LogIn) -> None:
    make_user("ada")
    here, elsewhere = log_in("ada"), log_in("ada")

    response = client.get(SESSIONS, headers=here)

    assert [session["is_current"] for session in response.json()] == [True, False]
    assert "token" not in response.text
    one = response.json()[1]["id"]
    assert client.delete(f"{SESSIONS}/{one}", headers=here).status_code == 204
    assert client.get(ME, headers=elsewhere).status_code == 401


def test_users_can_log_out_everywhere_else(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    here, *others = log_in("ada"), log_in("ada"), log_in("ada")

    assert client.delete(SESSIONS, headers=here).status_code == 204

    assert client.get(ME, headers=here).status_code == 200
    assert [client.get(ME, headers=other).status_code for other in others] == [401, 401]


def test_the_session_of_another_user_does_not_exist(
    client: TestClient, admin: Headers, visitor: Headers
) -> None:
    (session,) = client.get(SESSIONS, headers=admin).json()

    response = client.delete(f"{SESSIONS}/{session['id']}", headers=visitor)

    assert response.status_code == 404
    assert client.get(ME, headers=admin).status_code == 200


@pytest.mark.parametrize(
    ("column", "days", "status"),
    [
        ("last_used_at", 6.9, 200),
        ("last_used_at", 7.1, 401),
        ("created_at", 29.9, 200),
        ("created_at", 30.1, 401),
    ],
)
def test_session_expires_when_unused_or_old(
    client: TestClient, visitor: Headers, rows: Engine, column: str, days: float, status: int
) -> None:
    move_back(rows, column, timedelta(days=days))

    assert client.get(ME, headers=visitor).status_code == status


def test_sensitive_changes_need_a_recent_login(
    client: TestClient, admin: Headers, make_user: MakeUser, rows: Engine
) -> None:
    ada = f"{USERS}/{make_user('ada')}"
    move_back(rows, "created_at", timedelta(minutes=61))

    responses = [
        client.patch(ME, json={"email": "new@example.com"}, headers=admin),
        client.patch(ada, json={"is_active": False}, headers=admin),
        client.put(f"{ada}/permissions", json={"permissions": []}, headers=admin),
        client.delete(ada, headers=admin),
    ]

    assert [response.status_code for response in responses] == [401] * 4
    assert "insufficient_user_authentication" in responses[0].headers["WWW-Authenticate"]
    assert client.get(ME, headers=admin).status_code == 200


def test_a_user_has_at_most_twenty_sessions(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")

    first, second, *_ = [log_in("ada") for _ in range(21)]

    assert client.get(ME, headers=first).status_code == 401
    assert client.get(ME, headers=second).status_code == 200
