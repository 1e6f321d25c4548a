"""Tokens and login sessions."""

import asyncio
import logging
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.dialects import sqlite
from starlette.testclient import WebSocketDenialResponse

import app as project
from app.api.deps import CurrentUser, OptionalUser, require
from app.auth import service
from app.auth.authentication import _AUTH_CONTEXT
from app.auth.dependencies import get_auth_context
from app.auth.passwords import PasswordCheck, hash_new_password, verify_password
from app.auth.sessions import AuthContext, Client, authenticate
from app.core.database import Database
from app.main import create_app
from app.permissions import PUBLIC_ROUTES, PermissionName
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
    bearer,
    execute,
    fill,
    move_clock,
    operations,
    token_of,
)
from tests.conftest import MakeSettings


def test_t1_a_token_is_random_and_its_stored_hash_is_no_token(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")
    tokens = {token_of(log_in("ada")) for _ in range(5)}

    assert len(tokens) == 5
    for token in tokens:
        assert client.get(ME, headers=bearer(token)).status_code == 200
        assert token.startswith(f"{project.SLUG}_")
        assert len(token) - len(project.SLUG) - 1 >= math.ceil(256 / 6)
    for (token_hash,) in execute(rows, "SELECT token_hash FROM sessions"):
        assert token_hash not in tokens
        for forged in (token_hash, f"{project.SLUG}_{token_hash}"):
            assert client.get(ME, headers=bearer(str(forged))).status_code == 401


def test_t2_a_login_never_adopts_a_token_of_the_client(
    client: TestClient, make_user: MakeUser
) -> None:
    make_user("ada")
    brought = f"{project.SLUG}_{'A' * 43}"
    form = {"username": "ada", "password": PASSWORD}

    response = client.post(LOGIN, data=form, headers=bearer(brought))

    assert response.json()["access_token"] != brought
    assert client.get(ME, headers=bearer(brought)).status_code == 401


def test_t2_a_login_ends_the_session_whose_token_came_with_it(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    here, there = log_in("ada"), log_in("ada")

    again = client.post(LOGIN, data={"username": "ada", "password": PASSWORD}, headers=here)

    assert client.get(ME, headers=here).status_code == 401
    assert client.get(ME, headers=there).status_code == 200
    assert client.get(ME, headers=bearer(again.json()["access_token"])).status_code == 200


def test_t2_a_failed_login_ends_no_session(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    here = log_in("ada")

    failed = client.post(LOGIN, data={"username": "ada", "password": "wrong"}, headers=here)

    assert failed.status_code == 401
    assert client.get(ME, headers=here).status_code == 200


@pytest.mark.parametrize(
    "value", [b"", b"Bearer", b"Basic YWRhOnB3", b"Bearer \xff\xfe", b"Bearer a"]
)
def test_t2_a_login_ignores_a_malformed_authorization(
    client: TestClient, make_user: MakeUser, value: bytes
) -> None:
    make_user("ada")
    form = {"username": "ada", "password": PASSWORD}

    assert client.post(LOGIN, data=form, headers=[(b"Authorization", value)]).status_code == 200


def test_t3_a_logout_ends_this_session_at_once_and_no_other(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    here, there = log_in("ada"), log_in("ada")

    assert client.post(LOGOUT, headers=here).status_code == 204
    assert client.post(LOGOUT, headers=here).status_code == 401
    assert client.get(ME, headers=here).status_code == 401
    assert client.get(ME, headers=there).status_code == 200


def test_t3_logging_out_of_a_session_that_has_just_ended_is_no_error(
    client: TestClient,
    make_settings: MakeSettings,
    make_user: MakeUser,
    log_in: LogIn,
) -> None:
    make_user("ada")
    here = log_in("ada")

    async def look_up() -> AuthContext | None:
        settings = make_settings()
        async with Database(settings) as database, database.readers() as session:
            return await authenticate(session, settings, token_of(here))

    let_in = asyncio.run(look_up())
    client.post(LOGOUT, headers=here)
    app = create_app(make_settings())
    app.dependency_overrides[get_auth_context] = lambda: let_in

    with TestClient(app) as late:
        assert late.post(LOGOUT).status_code == 204


def test_t4_a_new_password_ends_every_session_and_begins_a_new_one(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    headers = [log_in("ada") for _ in range(3)]
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}

    changed = client.post(CHANGE_PASSWORD, json=change, headers=headers[0])

    assert [client.get(ME, headers=header).status_code for header in headers] == [401] * 3
    assert client.get(ME, headers=bearer(changed.json()["access_token"])).status_code == 200
    assert client.post(LOGIN, data={"username": "ada", "password": PASSWORD}).status_code == 401
    log_in("ada", NEW_PASSWORD)


@pytest.mark.parametrize("change", [{"is_active": False}, {"password": NEW_PASSWORD}, None])
def test_t4_deactivation_a_set_password_and_deletion_end_every_session(
    client: TestClient,
    make_user: MakeUser,
    log_in: LogIn,
    admin: dict[str, str],
    rows: Engine,
    change: dict[str, object] | None,
) -> None:
    user_id = make_user("ada")
    headers = [log_in("ada") for _ in range(3)]
    path = f"{USERS}/{user_id}"

    if change is None:
        assert client.delete(path, headers=admin).status_code == 204
    else:
        assert client.patch(path, json=change, headers=admin).status_code == 200

    assert [client.get(ME, headers=header).status_code for header in headers] == [401] * 3
    left = execute(rows, "SELECT count(*) FROM sessions WHERE user_id = :id", id=user_id)
    assert left == [(0,)]


def test_t5_a_login_that_a_change_of_password_overtakes_fails(
    client: TestClient,
    make_user: MakeUser,
    log_in: LogIn,
    rows: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old password was still right when it was verified."""
    make_user("ada")
    ada = log_in("ada")
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    changes: list[int] = []

    async def verify_before_the_change(password: str, stored_hash: str) -> PasswordCheck:
        check = await verify_password(password, stored_hash)
        if not changes:
            # The change itself verifies a password, too.
            changes.append(0)
            response = await asyncio.to_thread(
                client.post, CHANGE_PASSWORD, json=change, headers=ada
            )
            changes[0] = response.status_code
        return check

    monkeypatch.setattr(service, "verify_password", verify_before_the_change)
    login = client.post(LOGIN, data={"username": "ada", "password": PASSWORD})

    assert changes == [200]
    assert login.status_code == 401
    assert execute(rows, "SELECT count(*) FROM sessions") == [(1,)]


def test_t5_of_logins_and_a_change_of_password_at_once_only_the_new_session_lives(
    make_user: MakeUser, make_settings: MakeSettings, rows: Engine
) -> None:
    """Ten times, each with the password that is replaced."""
    make_user("ada")
    here = Client("127.0.0.1", "test")
    settings = make_settings()

    async def race(database: Database, old: str, new: str) -> None:
        issued = await service.log_in(database, settings, "ada", old, here)
        async with database.readers() as session:
            caller = await authenticate(session, settings, issued.access_token)
        assert caller is not None
        changed, *logins = await asyncio.gather(
            service.change_password(database, settings, caller, old, new, here),
            *(service.log_in(database, settings, "ada", old, here) for _ in range(3)),
            return_exceptions=True,
        )
        assert not isinstance(changed, BaseException), changed
        async with database.readers() as session:
            for login in logins:
                if not isinstance(login, BaseException):
                    assert await authenticate(session, settings, login.access_token) is None
            assert await authenticate(session, settings, changed.access_token) is not None

    async def races() -> None:
        passwords = [PASSWORD, *(f"seven wet otters, raft {n * 7919}" for n in range(10))]
        async with Database(settings) as database:
            for old, new in pairwise(passwords):
                execute(rows, "DELETE FROM throttles")
                await race(database, old, new)

    asyncio.run(races())


@pytest.mark.parametrize(
    ("other_change", "status"),
    [("UPDATE users SET password = 'that of the other'", 409), ("DELETE FROM sessions", 401)],
)
def test_t5_a_change_of_password_that_another_change_overtakes_is_rejected(
    client: TestClient,
    visitor: dict[str, str],
    rows: Engine,
    monkeypatch: pytest.MonkeyPatch,
    other_change: str,
    status: int,
) -> None:
    stored: list[object] = []

    async def hash_before_the_change(*args: Any, **options: Any) -> str:
        hashed = await hash_new_password(*args, **options)
        execute(rows, other_change)
        stored.extend(execute(rows, "SELECT password FROM users"))
        return hashed

    monkeypatch.setattr(service, "hash_new_password", hash_before_the_change)
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}

    assert client.post(CHANGE_PASSWORD, json=change, headers=visitor).status_code == status
    assert execute(rows, "SELECT password FROM users") == stored


def test_t6_sessions_are_listed_without_tokens_and_ended_one_by_one(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    here, there, elsewhere = log_in("ada"), log_in("ada"), log_in("ada")

    listed = client.get(SESSIONS, headers=here)

    assert [session["is_current"] for session in listed.json()] == [True, False, False]
    assert listed.json()[0].keys() == {
        *("id", "created_at", "last_used_at", "address", "user_agent", "is_current")
    }
    assert listed.json()[0]["created_at"].endswith("Z")
    second = listed.json()[1]["id"]
    assert client.delete(f"{SESSIONS}/{second}", headers=here).status_code == 204
    assert client.get(ME, headers=there).status_code == 401
    assert client.delete(SESSIONS, headers=here).status_code == 204
    assert client.get(ME, headers=elsewhere).status_code == 401
    assert client.get(ME, headers=here).status_code == 200


def test_t6_an_expired_session_is_not_listed(
    client: TestClient, visitor: dict[str, str], log_in: LogIn, rows: Engine
) -> None:
    assert len(client.get(SESSIONS, headers=visitor).json()) == 1
    move_clock(rows, "sessions", "last_used_at", -8 * 86_400)

    assert len(client.get(SESSIONS, headers=log_in("visitor")).json()) == 1


def test_t6_an_administrator_can_end_the_sessions_of_a_user(
    client: TestClient, make_user: MakeUser, log_in: LogIn, admin: dict[str, str]
) -> None:
    user_id, ada = make_user("ada"), log_in("ada")

    assert client.delete(f"{USERS}/{user_id}/sessions", headers=admin).status_code == 204
    assert client.get(ME, headers=ada).status_code == 401


@pytest.mark.parametrize(
    ("column", "days", "status"),
    [
        ("last_used_at", -6.9, 200),
        ("last_used_at", -7.1, 401),
        ("created_at", -29.9, 200),
        ("created_at", -30.1, 401),
        ("created_at", 0.5, 200),
        ("created_at", 365, 401),
        ("last_used_at", 365, 401),
    ],
)
def test_t7_a_session_expires_when_it_is_unused_too_old_or_far_in_the_future(
    client: TestClient, visitor: dict[str, str], rows: Engine, column: str, days: float, status: int
) -> None:
    move_clock(rows, "sessions", column, round(days * 86_400))

    assert client.get(ME, headers=visitor).status_code == status


def test_t7_the_lifetimes_are_settings(
    make_settings: MakeSettings, visitor: dict[str, str], rows: Engine
) -> None:
    settings = make_settings(session_idle_days=1, session_absolute_days=2)
    with TestClient(create_app(settings)) as client:
        assert client.get(ME, headers=visitor).status_code == 200
        move_clock(rows, "sessions", "created_at", -3 * 86_400)
        assert client.get(ME, headers=visitor).status_code == 401


def test_the_use_of_a_session_is_recorded_every_five_minutes(
    client: TestClient, visitor: dict[str, str], rows: Engine
) -> None:
    def last_used() -> object:
        return execute(rows, "SELECT last_used_at FROM sessions")[0][0]

    fresh = last_used()
    client.get(ME, headers=visitor)
    assert last_used() == fresh

    move_clock(rows, "sessions", "last_used_at", -6 * 60)
    old = last_used()
    client.get(ME, headers=visitor)
    assert last_used() != old


def test_the_use_of_a_session_by_a_websocket_is_recorded_too(
    app: FastAPI, client: TestClient, visitor: dict[str, str], rows: Engine
) -> None:
    @app.websocket("/socket")
    async def talk(socket: WebSocket, user: CurrentUser) -> None:
        await socket.accept()
        await socket.send_text(user.username)

    move_clock(rows, "sessions", "last_used_at", -6 * 60)
    ((old,),) = execute(rows, "SELECT last_used_at FROM sessions")
    with client.websocket_connect("/socket", headers=visitor) as socket:
        socket.receive_text()

    assert execute(rows, "SELECT last_used_at FROM sessions") != [(old,)]


def test_the_twenty_first_session_ends_the_oldest_one(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")

    headers = [log_in("ada") for _ in range(21)]

    assert client.get(ME, headers=headers[0]).status_code == 401
    assert client.get(ME, headers=headers[1]).status_code == 200
    assert execute(rows, "SELECT count(*) FROM sessions") == [(20,)]


def test_a_login_that_replaces_a_session_ends_no_other_one(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    headers = [log_in("ada") for _ in range(20)]

    form = {"username": "ada", "password": PASSWORD}
    assert client.post(LOGIN, data=form, headers=headers[-1]).status_code == 200

    statuses = [client.get(ME, headers=header).status_code for header in headers]
    assert statuses == [200] * 19 + [401]


@pytest.mark.parametrize(("days", "left"), [(-38, 1), (-36, 2)])
def test_sessions_that_expired_a_month_ago_are_deleted(
    make_user: MakeUser, log_in: LogIn, rows: Engine, days: int, left: int
) -> None:
    """Not at once, in case a clock runs ahead. They expire after seven days."""
    make_user("ada")
    make_user("bob")
    log_in("ada")
    move_clock(rows, "sessions", "last_used_at", days * 86_400)

    log_in("bob")

    assert execute(rows, "SELECT count(*) FROM sessions") == [(left,)]


def test_a_login_deletes_few_of_many_expired_sessions(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    """So that no login takes long, however many have expired."""
    make_user("ada")
    user_id = make_user("bob")
    execute(
        rows,
        "INSERT INTO sessions (user_id, token_hash, created_at, last_used_at, address, user_agent)"
        " WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 1999)"
        " SELECT :user_id, CAST(:zeros AS text) || i, :long_ago, :long_ago, '', '' FROM n",
        user_id=user_id,
        zeros="0" * 60,
        long_ago=datetime(2020, 1, 1, tzinfo=UTC),
    )

    log_in("ada")

    assert execute(rows, "SELECT count(*) FROM sessions") == [(1000 - 100 + 1,)]


def test_t8_the_session_of_another_user_is_not_found(
    client: TestClient, make_user: MakeUser, log_in: LogIn, admin: dict[str, str]
) -> None:
    make_user("ada")
    ada = log_in("ada")
    (session,) = client.get(SESSIONS, headers=admin).json()

    foreign = client.delete(f"{SESSIONS}/{session['id']}", headers=ada)
    absent = client.delete(f"{SESSIONS}/{session['id'] + 99}", headers=ada)

    assert foreign.status_code == absent.status_code == 404
    assert client.get(ME, headers=admin).status_code == 200


def test_t11_no_token_and_no_password_is_ever_logged(
    client: TestClient, make_user: MakeUser, log_in: LogIn, caplog: pytest.LogCaptureFixture
) -> None:
    # As configure_logging does it, since libraries log values at DEBUG.
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "app")
    make_user("ada")
    header = log_in("ada")
    client.get(ME, headers=header)
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    changed = client.post(CHANGE_PASSWORD, json=change, headers=header)
    client.get("/nowhere", headers=header)
    client.post(LOGIN, data={"username": "a secret as a name", "password": PASSWORD})

    lines = "\n".join(str(vars(record)) for record in caplog.records)
    tokens = (token_of(header), changed.json()["access_token"])
    for secret in (*tokens, PASSWORD, NEW_PASSWORD, "a secret as a name"):
        assert secret not in lines


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic YWRhOnB3",
        b"Bearer \xff\xfe",
        b"Bearer " + b"x" * 8000,
        b"Bearer a b",
        b"bearer " + b"A" * 43,
        b"Token abc",
    ],
    ids=lambda value: repr(value[:24]),
)
def test_t12_a_malformed_authorization_is_a_401_without_a_query(
    client: TestClient, statements: Counter[str], value: bytes
) -> None:
    response = client.get(ME, headers=[(b"Authorization", value)])

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert not statements


def test_t12_two_authorizations_or_none_are_a_401(
    client: TestClient, visitor: dict[str, str]
) -> None:
    twice = [("Authorization", visitor["Authorization"])] * 2

    assert client.get(ME).status_code == 401
    assert client.get(ME, headers=twice).status_code == 401
    assert client.get(ME, params={"access_token": token_of(visitor)}).status_code == 401


def test_t12_an_optional_login_is_still_checked(
    app: FastAPI, client: TestClient, visitor: dict[str, str]
) -> None:
    @app.get("/greeting")
    async def greet(user: OptionalUser) -> str:
        return user.username if user else "stranger"

    assert client.get("/greeting").json() == "stranger"
    assert client.get("/greeting", headers=visitor).json() == "visitor"
    assert client.get("/greeting", headers=bearer("forged")).status_code == 401
    assert app.openapi()["paths"]["/greeting"]["get"]["security"] == [{}, {"token": []}]


def test_t12_a_websocket_needs_a_token_too(
    app: FastAPI, client: TestClient, visitor: dict[str, str]
) -> None:
    @app.websocket("/socket")
    async def talk(socket: WebSocket, user: CurrentUser) -> None:
        await socket.accept()
        await socket.send_text(user.username)

    with client.websocket_connect("/socket", headers=visitor) as socket:
        assert socket.receive_text() == "visitor"
    for headers in ({}, bearer("forged")):
        with (
            pytest.raises(WebSocketDenialResponse) as denied,
            client.websocket_connect("/socket", headers=headers),
        ):
            pass
        assert denied.value.status_code == 401


@pytest.mark.parametrize("minutes", [-61, 61])
def test_t13_a_sensitive_change_needs_a_recent_login(
    client: TestClient, make_user: MakeUser, admin: dict[str, str], rows: Engine, minutes: int
) -> None:
    """One that a wrong clock has dated ahead would count as recent for long."""
    user_id = make_user("ada")
    move_clock(rows, "sessions", "created_at", minutes * 60)

    responses = [
        client.patch(ME, json={"email": "new@example.com"}, headers=admin),
        client.patch(f"{USERS}/{user_id}", json={"is_active": False}, headers=admin),
        client.put(f"{USERS}/{user_id}/permissions", json={"permissions": []}, headers=admin),
        client.delete(f"{USERS}/{user_id}", headers=admin),
    ]

    assert [response.status_code for response in responses] == [401] * 4
    challenge = 'Bearer error="insufficient_user_authentication"'
    assert {response.headers["www-authenticate"] for response in responses} == {challenge}
    assert client.get(ME, headers=admin).status_code == 200


def test_t13_every_change_to_users_or_sessions_needs_a_recent_login(
    shared_app: FastAPI, client: TestClient, admin: dict[str, str], rows: Engine
) -> None:
    """Except ending your own session, two that need the password, and what links by email do."""
    move_clock(rows, "sessions", "created_at", -61 * 60)
    without = {LOGIN, LOGOUT, CHANGE_PASSWORD, *(path for _, path in PUBLIC_ROUTES)}

    changes = [
        (method, path)
        for method, path, _ in operations(shared_app)
        if method != "GET" and path.startswith(("/api/v1/auth", USERS)) and path not in without
    ]

    assert {path for _, path in changes} >= {SESSIONS, USERS, f"{USERS}/{{user_id}}/sessions"}
    challenge = 'Bearer error="insufficient_user_authentication"'
    for method, path in changes:
        response = client.request(method, fill(path), headers=admin, json={})
        assert response.headers.get("www-authenticate") == challenge, (method, path)


def test_a_token_is_checked_with_one_query_and_without_a_lock(
    app: FastAPI, client: TestClient, admin: dict[str, str], statements: Counter[str]
) -> None:
    @app.get("/both", dependencies=[require(PermissionName.USERS_READ)])
    async def ask_twice(user: CurrentUser) -> str:
        return user.username

    statements.clear()
    assert client.get("/both", headers=admin).json() == "admin"

    assert statements["SELECT"] == 1
    assert set(statements) <= {"SELECT", "BEGIN"}


def test_parallel_requests_with_one_token_all_succeed(
    client: TestClient, visitor: dict[str, str], rows: Engine
) -> None:
    move_clock(rows, "sessions", "last_used_at", -6 * 60)

    with ThreadPoolExecutor(10) as clients:
        statuses = Counter(
            clients.map(lambda _: client.get(ME, headers=visitor).status_code, range(40))
        )

    assert statuses == {200: 40}


def test_authentication_sends_the_same_text_for_every_request() -> None:
    """SQLAlchemy would have to complete a text with such a part each time."""
    assert "POSTCOMPILE" not in str(_AUTH_CONTEXT.compile(dialect=sqlite.dialect()))
