"""Tokens and sessions. The ids are those of docs/security.md in the template."""

import asyncio
import logging
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event

import app as project
from app.api.auth import CurrentUser, get_identity, require
from app.db.session import Database
from app.main import create_app
from app.security import hash_password, is_token
from app.services import login, rights, users
from app.services.identity import Identity, identify
from app.services.sessions import Client
from app.settings import Settings
from tests.auth.conftest import LOGIN, ME, PASSWORD, LogIn, MakeUser, execute, move_clock
from tests.conftest import MakeSettings

SESSIONS = "/api/v1/auth/sessions"
NEW_PASSWORD = "nine dry owls on a roof"


@pytest.fixture
def statements(app: FastAPI, client: TestClient) -> Counter[str]:
    """What the app sends to its database, by the first word, once it has started."""
    counts: Counter[str] = Counter()
    for engine in {id(e): e for e in app.state.database._engines}.values():
        event.listen(
            engine.sync_engine,
            "before_cursor_execute",
            lambda *args: counts.update([args[2].split()[0]]),
        )
    return counts


def token_of(header: dict[str, str]) -> str:
    return header["Authorization"].removeprefix("Bearer ")


def test_t1_a_token_is_random_and_stored_as_a_digest_that_is_no_token(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")
    tokens = {token_of(log_in("ada")) for _ in range(5)}

    assert len(tokens) == 5
    assert all(token.startswith(f"{project.SLUG}_") and is_token(token) for token in tokens)
    assert len(token_of(log_in("ada"))) - len(project.SLUG) - 1 >= math.ceil(256 / 6)
    for (digest,) in execute(rows, "SELECT token_hash FROM sessions"):
        assert digest not in tokens
        header = {"Authorization": f"Bearer {project.SLUG}_{digest}"}
        assert client.get(ME, headers=header).status_code == 401
        header = {"Authorization": f"Bearer {digest}"}
        assert client.get(ME, headers=header).status_code == 401


def test_t2_a_token_that_the_client_brings_is_not_adopted(
    client: TestClient, make_user: MakeUser
) -> None:
    make_user("ada")
    brought = f"{project.SLUG}_{'A' * 43}"
    form = {"username": "ada", "password": PASSWORD}

    answer = client.post(LOGIN, data=form, headers={"Authorization": f"Bearer {brought}"})

    assert answer.json()["access_token"] != brought
    assert client.get(ME, headers={"Authorization": f"Bearer {brought}"}).status_code == 401


def test_t3_logging_out_ends_this_session_at_once_and_no_other(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    here, there = log_in("ada"), log_in("ada")

    assert client.post("/api/v1/auth/logout", headers=here).status_code == 204
    assert client.post("/api/v1/auth/logout", headers=here).status_code == 401
    assert client.get(ME, headers=here).status_code == 401
    assert client.get(ME, headers=there).status_code == 200


def test_t3_logging_out_of_a_session_that_ends_meanwhile_is_no_error(
    app: FastAPI,
    client: TestClient,
    make_settings: MakeSettings,
    make_user: MakeUser,
    log_in: LogIn,
) -> None:
    make_user("ada")
    here = log_in("ada")

    async def look_up() -> Identity | None:
        token = here["Authorization"].removeprefix("Bearer ")
        settings = make_settings()
        async with Database(settings) as database, database.readers() as session:
            return await identify(session, settings, token)

    let_in = asyncio.run(look_up())
    client.post("/api/v1/auth/logout", headers=here)
    app.dependency_overrides[get_identity] = lambda: let_in

    assert client.post("/api/v1/auth/logout").status_code == 204


def test_t4_a_new_password_ends_every_session_but_the_new_one(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    headers = [log_in("ada") for _ in range(3)]
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}

    changed = client.post("/api/v1/auth/password", json=change, headers=headers[0])

    assert [client.get(ME, headers=header).status_code for header in headers] == [401] * 3
    new = {"Authorization": f"Bearer {changed.json()['access_token']}"}
    assert client.get(ME, headers=new).status_code == 200
    assert client.post(LOGIN, data={"username": "ada", "password": PASSWORD}).status_code == 401
    log_in("ada", NEW_PASSWORD)


@pytest.mark.parametrize("change", [{"is_active": False}, {"password": NEW_PASSWORD}, None])
def test_t4_deactivation_deletion_and_a_password_that_is_set_end_every_session(
    client: TestClient,
    make_user: MakeUser,
    log_in: LogIn,
    admin: dict[str, str],
    rows: Engine,
    change: dict[str, object] | None,
) -> None:
    number = make_user("ada")
    headers = [log_in("ada") for _ in range(3)]
    path = f"/api/v1/users/{number}"

    if change is None:
        assert client.delete(path, headers=admin).status_code == 204
    else:
        assert client.patch(path, json=change, headers=admin).status_code == 200

    assert [client.get(ME, headers=header).status_code for header in headers] == [401] * 3
    left = execute(rows, "SELECT count(*) FROM sessions WHERE user_id = :number", number=number)
    assert left == [(0,)]


def test_t5_a_log_in_during_a_change_of_password_leaves_no_live_session(
    make_user: MakeUser, make_settings: MakeSettings, rows: Engine
) -> None:
    """Both begin at once, twenty times, with the password that is replaced."""
    number = make_user("ada")
    here = Client("127.0.0.1", "test")
    settings = make_settings()

    async def race(old: str, new: str) -> None:
        async with Database(settings) as database:
            issued = await login.log_in(database, settings, "ada", old, here)
            async with database.readers() as session:
                identity = await identify(session, settings, issued.access_token)
            assert identity is not None
            outcomes = await asyncio.gather(
                login.change_password(database, settings, identity, old, new, here),
                *(login.log_in(database, settings, "ada", old, here) for _ in range(3)),
                return_exceptions=True,
            )
            changed, *logins = outcomes
            assert not isinstance(changed, BaseException)
            async with database.readers() as session:
                for outcome in logins:
                    if not isinstance(outcome, BaseException):
                        assert await identify(session, settings, outcome.access_token) is None
                assert await identify(session, settings, changed.access_token) is not None

    passwords = [f"seven wet otters, raft {n * 7919}" for n in range(21)]
    asyncio.run(set_password(settings, number, passwords[0]))
    for old, new in pairwise(passwords):
        execute(rows, "DELETE FROM throttles")
        asyncio.run(race(old, new))


async def set_password(settings: Settings, number: int, password: str) -> None:
    hashed = await hash_password(password)
    async with Database(settings) as database, database.writers.begin() as session:
        await users.set_password(session, await rights.load_user(session, number), hashed)


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


def test_t6_an_administrator_ends_the_sessions_of_a_user(
    client: TestClient, make_user: MakeUser, log_in: LogIn, admin: dict[str, str]
) -> None:
    number, ada = make_user("ada"), log_in("ada")

    assert client.delete(f"/api/v1/users/{number}/sessions", headers=admin).status_code == 204
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
def test_t7_a_session_ends_unused_or_old_or_from_a_wrong_future(
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


def test_the_use_of_a_session_is_noted_every_five_minutes_and_not_more_often(
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


def test_a_twenty_first_session_ends_the_oldest_one(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")

    headers = [log_in("ada") for _ in range(21)]

    assert client.get(ME, headers=headers[0]).status_code == 401
    assert client.get(ME, headers=headers[1]).status_code == 200
    assert execute(rows, "SELECT count(*) FROM sessions") == [(20,)]


def test_sessions_that_ended_long_ago_are_deleted(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")
    make_user("bob")
    log_in("ada")
    move_clock(rows, "sessions", "last_used_at", -38 * 86_400)

    log_in("bob")

    assert execute(rows, "SELECT count(*) FROM sessions") == [(1,)]


def test_t8_the_session_of_somebody_else_is_not_there(
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
    # As configure_logging does: libraries log values at DEBUG.
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "app")
    make_user("ada")
    header = log_in("ada")
    client.get(ME, headers=header)
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    answer = client.post("/api/v1/auth/password", json=change, headers=header)
    client.get("/nowhere", headers=header)
    client.post(LOGIN, data={"username": "a secret as a name", "password": PASSWORD})

    lines = "\n".join(str(vars(record)) for record in caplog.records)
    tokens = (token_of(header), answer.json()["access_token"])
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
def test_t12_a_malformed_authorization_is_a_401_that_asks_no_database(
    client: TestClient, statements: Counter[str], value: bytes
) -> None:
    answer = client.get(ME, headers=[(b"Authorization", value)])

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not statements


def test_t12_two_authorizations_or_none_are_a_401(
    client: TestClient, visitor: dict[str, str]
) -> None:
    twice = [("Authorization", visitor["Authorization"])] * 2

    assert client.get(ME).status_code == 401
    assert client.get(ME, headers=twice).status_code == 401
    assert client.get(ME, params={"access_token": token_of(visitor)}).status_code == 401


def test_t13_what_is_sensitive_needs_a_recent_log_in(
    client: TestClient, make_user: MakeUser, admin: dict[str, str], rows: Engine
) -> None:
    number = make_user("ada")
    move_clock(rows, "sessions", "created_at", -61 * 60)

    answers = [
        client.patch(ME, json={"email": "new@example.com"}, headers=admin),
        client.patch(f"/api/v1/users/{number}", json={"is_active": False}, headers=admin),
        client.put(f"/api/v1/users/{number}/permissions", json={"permissions": []}, headers=admin),
        client.delete(f"/api/v1/users/{number}", headers=admin),
        client.post("/api/v1/permissions", json={"name": "books:read"}, headers=admin),
        client.patch("/api/v1/permissions/1", json={"description": "New"}, headers=admin),
        client.delete("/api/v1/permissions/1", headers=admin),
    ]

    assert [answer.status_code for answer in answers] == [401] * 7
    challenge = 'Bearer error="insufficient_user_authentication"'
    assert {answer.headers["www-authenticate"] for answer in answers} == {challenge}
    assert client.get(ME, headers=admin).status_code == 200


def test_the_check_of_a_token_is_one_statement_and_takes_no_lock(
    app: FastAPI, client: TestClient, admin: dict[str, str], statements: Counter[str]
) -> None:
    @app.get("/both", dependencies=[require("users:read")])
    async def ask_twice(identity: CurrentUser) -> str:
        return identity.username

    statements.clear()
    assert client.get("/both", headers=admin).json() == "admin"

    assert statements["SELECT"] == 1
    assert set(statements) <= {"SELECT", "BEGIN"}


def test_parallel_requests_with_one_token_all_pass(
    client: TestClient, visitor: dict[str, str], rows: Engine
) -> None:
    move_clock(rows, "sessions", "last_used_at", -6 * 60)

    with ThreadPoolExecutor(10) as clients:
        statuses = Counter(
            clients.map(lambda _: client.get(ME, headers=visitor).status_code, range(40))
        )

    assert statuses == {200: 40}
