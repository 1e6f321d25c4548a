"""API keys: what they can do, what they cannot, and how they end."""

from collections import Counter
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

import app as project
from app.api.deps import CurrentUser, SessionDep
from app.auth import permissions
from app.auth.models import Purpose
from app.permissions import PUBLIC_ROUTES
from tests.auth_internals.helpers import (
    CHANGE_PASSWORD,
    LOGIN,
    LOGOUT,
    ME,
    NEW_PASSWORD,
    PASSWORD,
    SESSIONS,
    USERS,
    LogIn,
    MakeUser,
    add_links,
    bearer,
    execute,
    fill,
    grant,
    move_clock,
    operations,
    token_of,
)

KEYS = "/api/v1/auth/keys"
Headers = dict[str, str]


def create_key(client: TestClient, headers: Headers, *scopes: str, **values: Any) -> dict[str, Any]:
    body = {"name": "backup", "scopes": scopes, **values}
    response = client.post(KEYS, json=body, headers=headers)
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


@pytest.fixture
def key(client: TestClient, admin: Headers) -> Headers:
    """The header of a key of admin that may see users."""
    return bearer(create_key(client, admin, "users:read")["key"])


def test_k1_a_key_is_shown_once_and_stored_as_a_hash(
    client: TestClient, admin: Headers, rows: Engine
) -> None:
    created = create_key(client, admin, "users:read", expires_in_days=30)
    token = created.pop("key")

    assert token.startswith(f"{project.SLUG}_key_")
    assert len(token.removeprefix(f"{project.SLUG}_key_")) == 43
    assert client.get(KEYS, headers=admin).json() == [created]
    ((stored,),) = execute(rows, "SELECT token_hash FROM api_keys")
    assert stored not in token
    for forged in (stored, f"{project.SLUG}_key_{stored}", token[:-1], f"{token}=", token.upper()):
        assert client.get(USERS, headers=bearer(str(forged))).status_code == 401
    everything = [row for table in ("api_keys", "audit_events") for row in _all(rows, table)]
    assert token not in repr(everything)


def _all(rows: Engine, table: str) -> list[tuple[object, ...]]:
    return execute(rows, f"SELECT * FROM {table}")


def test_k2_a_key_has_the_scopes_that_its_user_still_holds(
    client: TestClient, admin: Headers, make_user: MakeUser, log_in: LogIn
) -> None:
    user_id = make_user("bob", "users:read", "permissions:read")
    key = bearer(create_key(client, log_in("bob"), "users:read")["key"])
    paths = (USERS, "/api/v1/permissions")

    assert [client.get(path, headers=key).status_code for path in paths] == [200, 403]
    grant(client, admin, user_id, "permissions:read")
    assert [client.get(path, headers=key).status_code for path in paths] == [403, 403]
    grant(client, admin, user_id, "users:read", "permissions:read")
    assert [client.get(path, headers=key).status_code for path in paths] == [200, 403]


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        (["users:write"], 403),
        (["no:such"], 422),
        (["users:read", "no:such"], 422),
        (["users:read", "users:read"], 201),
        ([], 201),
    ],
)
def test_k2_a_key_gets_no_scope_that_its_user_lacks(
    client: TestClient,
    make_user: MakeUser,
    log_in: LogIn,
    rows: Engine,
    scopes: list[str],
    status: int,
) -> None:
    make_user("bob", "users:read")

    response = client.post(KEYS, json={"name": "x", "scopes": scopes}, headers=log_in("bob"))

    assert response.status_code == status, response.text
    assert len(_all(rows, "api_keys")) == (status == 201)
    if status == 422:
        assert response.json()["errors"][0]["loc"] == ["body", "scopes", str(len(scopes) - 1)]


def test_k3_a_key_cannot_change_accounts_sessions_or_keys(
    shared_app: FastAPI, client: TestClient, admin: Headers, rows: Engine
) -> None:
    scopes = ["users:read", "users:write", "permissions:write", "permissions:read"]
    key = bearer(create_key(client, admin, *scopes)["key"])
    tables = ("users", "sessions", "api_keys", "user_permissions", "audit_events")
    execute(rows, "UPDATE api_keys SET last_used_at = created_at")
    before = [_all(rows, table) for table in tables]

    routes = [
        (method, path)
        for method, path, _ in operations(shared_app)
        if method != "GET"
        and path.startswith(("/api/v1/auth", USERS))
        # They ignore the header: every visitor may do this.
        and (method, path) not in PUBLIC_ROUTES
    ]
    routes += [("GET", SESSIONS), ("GET", KEYS)]
    bodies = {CHANGE_PASSWORD: {"current_password": PASSWORD, "new_password": NEW_PASSWORD}}
    answers = {
        (method, path): client.request(
            method, fill(path), headers=key, json=bodies.get(path, {})
        ).status_code
        for method, path in routes
    }

    assert {("POST", LOGOUT), ("POST", CHANGE_PASSWORD), ("PATCH", ME), ("POST", KEYS)} <= {
        *answers
    }
    assert ("POST", "/api/v1/auth/email/change") in answers
    assert {route for route, status in answers.items() if status not in {401, 403}} == set()
    assert [_all(rows, table) for table in tables] == before
    assert client.get(ME, headers=key).status_code == 200


END = {
    "deletion of the key": ("DELETE", f"{KEYS}/1", None),
    "own new password": (
        "POST",
        CHANGE_PASSWORD,
        {"current_password": PASSWORD, "new_password": NEW_PASSWORD},
    ),
}
END_BY_ADMIN = {
    "deactivation": ("PATCH", f"{USERS}/2", {"is_active": False}),
    "new password": ("PATCH", f"{USERS}/2", {"password": NEW_PASSWORD}),
    "logout everywhere": ("DELETE", f"{USERS}/2/sessions", None),
    "deletion of the user": ("DELETE", f"{USERS}/2", None),
}
END_BY_LINK = {
    "forgotten password": (
        "POST",
        "/api/v1/auth/password/reset",
        {"token": Purpose.RESET_PASSWORD, "new_password": NEW_PASSWORD},
    ),
    "return to the previous address": (
        "POST",
        "/api/v1/auth/email/confirm",
        {"token": Purpose.RESTORE_EMAIL},
    ),
}


@pytest.mark.parametrize("end", [*END, *END_BY_ADMIN, *END_BY_LINK])
def test_k4_a_key_ends_at_once(
    client: TestClient,
    admin: Headers,
    make_user: MakeUser,
    log_in: LogIn,
    rows: Engine,
    end: str,
) -> None:
    make_user("bob", "users:read")
    bob = log_in("bob")
    key = bearer(create_key(client, bob, "users:read")["key"])
    assert client.get(USERS, headers=key).status_code == 200
    add_links(rows)
    method, path, body = {**END, **END_BY_ADMIN, **END_BY_LINK}[end]

    response = client.request(method, path, json=body, headers=bob if end in END else admin)

    assert response.is_success, response.text
    assert client.get(USERS, headers=key).status_code == 401
    if end == "deactivation":
        client.patch(path, json={"is_active": True}, headers=admin)
        assert client.get(USERS, headers=key).status_code == 401


@pytest.mark.parametrize("end", ["logout", "others"])
def test_k4_a_key_stays_when_its_user_logs_out_of_a_device(
    client: TestClient, admin: Headers, key: Headers, end: str
) -> None:
    if end == "logout":
        client.post(LOGOUT, headers=admin)
    else:
        client.delete(SESSIONS, headers=admin)

    assert client.get(USERS, headers=key).status_code == 200


def test_k4_a_key_expires(client: TestClient, admin: Headers, rows: Engine) -> None:
    key = bearer(create_key(client, admin, "users:read", expires_in_days=1)["key"])

    move_clock(rows, "api_keys", "expires_at", 60 - 24 * 60 * 60)
    assert client.get(USERS, headers=key).status_code == 200
    move_clock(rows, "api_keys", "expires_at", -61)
    assert client.get(USERS, headers=key).status_code == 401
    # A wrong clock may have dated it.
    move_clock(rows, "api_keys", "expires_at", 400 * 24 * 60 * 60)
    assert client.get(USERS, headers=key).status_code == 401


def test_k4_the_key_of_another_user_does_not_exist(
    client: TestClient, admin: Headers, visitor: Headers, key: Headers
) -> None:
    assert client.get(KEYS, headers=visitor).json() == []
    assert client.delete(f"{KEYS}/1", headers=visitor).status_code == 404
    assert client.get(USERS, headers=key).status_code == 200


def test_t4_k4_no_session_and_no_key_of_an_inactive_user_is_valid(
    client: TestClient, admin: Headers, key: Headers, rows: Engine
) -> None:
    """Even if something else than the app has deactivated the user."""
    execute(rows, "UPDATE users SET is_active = false")

    assert [client.get(USERS, headers=header).status_code for header in (admin, key)] == [401, 401]


def test_k4_a_change_that_waited_is_rejected_if_the_key_has_ended(
    app: FastAPI, client: TestClient, admin: Headers, rows: Engine
) -> None:
    @app.post("/own")
    async def change(user: CurrentUser, session: SessionDep, ends: str = "") -> list[str]:
        if ends:
            execute(rows, ends)
        return sorted(await permissions.recheck(session, user, "users:read"))

    key = bearer(create_key(client, admin, "users:read", "audit:read")["key"])

    assert client.post("/own", headers=key).json() == ["audit:read", "users:read"]
    revoke = (
        "DELETE FROM user_permissions WHERE permission_id = "
        "(SELECT id FROM permissions WHERE name = 'users:read')"
    )
    assert client.post("/own", params={"ends": revoke}, headers=key).status_code == 403
    ends = "DELETE FROM api_keys"
    assert client.post("/own", params={"ends": ends}, headers=key).status_code == 401


def test_k5_a_key_is_checked_with_one_query_and_without_a_lock(
    client: TestClient, key: Headers, statements: Counter[str]
) -> None:
    client.get("/api/v1/permissions", headers=key)
    statements.clear()

    assert client.get("/api/v1/permissions", headers=key).status_code == 403

    assert statements["SELECT"] == 1
    assert set(statements) <= {"SELECT", "BEGIN"}


def test_k5_the_last_use_of_a_key_is_written_every_five_minutes_at_most(
    client: TestClient, admin: Headers, key: Headers, rows: Engine, statements: Counter[str]
) -> None:
    create_key(client, admin)
    used, unused = client.get(KEYS, headers=admin).json()
    assert used["last_used_at"] is unused["last_used_at"] is None

    for _ in range(3):
        client.get(USERS, headers=key)

    used, unused = client.get(KEYS, headers=admin).json()
    assert used["last_used_at"]
    assert unused["last_used_at"] is None
    assert statements["UPDATE"] == 1
    move_clock(rows, "api_keys", "last_used_at", -6 * 60)
    for _ in range(3):
        client.get(USERS, headers=key)
    assert statements["UPDATE"] == 2


def test_k6_a_user_has_at_most_twenty_keys_and_expired_ones_make_room(
    client: TestClient, admin: Headers, visitor: Headers, rows: Engine
) -> None:
    for _ in range(20):
        create_key(client, admin)
    create_key(client, visitor)
    body = {"name": "one more", "scopes": []}

    assert client.post(KEYS, json=body, headers=admin).status_code == 409
    execute(rows, "UPDATE api_keys SET expires_at = created_at WHERE id IN (1, 21)")
    assert client.post(KEYS, json=body, headers=admin).status_code == 201
    # Those of others stay, as do their keys that have expired.
    assert [len(client.get(KEYS, headers=who).json()) for who in (admin, visitor)] == [20, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"expires_in_days": 0},
        {"expires_in_days": 366},
        {"expires_in_days": 2**70},
        {"name": ""},
        {"name": "x" * 101},
        {"name": "\x1b[31m"},
        {"scopes": "users:read"},
        {"scopes": ["A"] * 1001},
        {"user_id": 1},
        {"key": "mine"},
        {"expires_at": "9999-12-31T00:00:00Z"},
    ],
    ids=lambda change: repr(change)[:30],
)
def test_k6_an_invalid_key_is_a_422(
    client: TestClient, admin: Headers, change: dict[str, object]
) -> None:
    body = {"name": "backup", "scopes": [], **change}

    assert client.post(KEYS, json=body, headers=admin).status_code == 422


def test_k6_a_new_key_needs_a_recent_login(
    client: TestClient, admin: Headers, rows: Engine
) -> None:
    move_clock(rows, "sessions", "created_at", -61 * 60)

    response = client.post(KEYS, json={"name": "backup", "scopes": []}, headers=admin)

    assert response.status_code == 401


def test_k6_a_login_with_a_key_in_its_header_leaves_the_key(
    client: TestClient, key: Headers
) -> None:
    form = {"username": "admin", "password": PASSWORD}

    assert client.post(LOGIN, data=form, headers=key).status_code == 200

    assert client.get(USERS, headers=key).status_code == 200
    assert token_of(key)
