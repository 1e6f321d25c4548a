"""The audit trail: every change leaves an event, and an event says who made which change."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, insert, select
from typer.testing import CliRunner

from app.api.deps import CurrentUser, SessionDep
from app.auth import audit
from app.auth.cli import permission, user
from app.auth.mail_cli import mail
from app.auth.models import AuditEvent, OutgoingMail, Purpose
from app.cli import cli
from app.db.base import Base
from app.main import create_app
from app.permissions import PUBLIC_ROUTES
from tests.auth_internals.helpers import (
    ADA,
    BOB,
    CHANGE_PASSWORD,
    LOGIN,
    LOGOUT,
    ME,
    NEW_PASSWORD,
    PASSWORD,
    SESSIONS,
    USERS,
    WRONG,
    LogIn,
    MakeUser,
    Statements,
    add_links,
    execute,
    operations,
)
from tests.conftest import SERVER, MakeSettings

AUDIT = "/api/v1/audit"
KEYS = "/api/v1/auth/keys"
NEW_KEY = {"name": "backup", "scopes": ["users:read"]}
FORGOT, RESET = "/api/v1/auth/password/forgot", "/api/v1/auth/password/reset"
REGISTER, COMPLETE = "/api/v1/auth/register", "/api/v1/auth/register/complete"
CHANGE_EMAIL, CONFIRM = "/api/v1/auth/email/change", "/api/v1/auth/email/confirm"
Events = list[dict[str, Any]]

# A request that changes something, for every route that is not a GET. The users are admin (1), who
# sends it and has two login sessions and an API key, and bob (2). Of each purpose, there is a link,
# whose token is the name of the purpose.
CHANGES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", LOGIN): {"data": {"username": "admin", "password": PASSWORD}},
    ("POST", LOGOUT): {},
    ("DELETE", SESSIONS): {},
    ("DELETE", f"{SESSIONS}/{{session_id}}"): {},
    ("POST", CHANGE_PASSWORD): {
        "json": {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    },
    ("POST", KEYS): {"json": NEW_KEY},
    ("DELETE", f"{KEYS}/{{key_id}}"): {},
    ("PATCH", ME): {"json": {"email": "new@example.com"}},
    ("POST", USERS): {"json": ADA},
    ("PATCH", f"{USERS}/{{user_id}}"): {"json": {"is_active": False}},
    ("DELETE", f"{USERS}/{{user_id}}"): {},
    ("DELETE", f"{USERS}/{{user_id}}/sessions"): {},
    ("PUT", f"{USERS}/{{user_id}}/permissions"): {"json": {"permissions": ["users:read"]}},
    ("POST", CHANGE_EMAIL): {"json": {"email": "new@example.com"}},
    ("POST", FORGOT): {"json": {"email": "bob@example.com"}},
    ("POST", RESET): {"json": {"token": Purpose.RESET_PASSWORD, "new_password": NEW_PASSWORD}},
    ("POST", REGISTER): {"json": {"email": "ada@example.com"}},
    ("POST", COMPLETE): {
        "json": {"token": Purpose.REGISTER, "username": "ada", "password": PASSWORD}
    },
    ("POST", CONFIRM): {"json": {"token": Purpose.CHANGE_EMAIL}},
}
# They ignore a token of the login: the event is of a visitor.
BY_VISITORS = {*PUBLIC_ROUTES} - {("POST", LOGIN)}

# Strangers could fill the trail with it. The event is that of the registration.
CHANGES_OF_NO_ACCOUNT = {("POST", REGISTER)}

# These do two things. The others leave one event.
TWO_EVENTS = {
    ("POST", LOGIN): ["login", "logout"],
    ("POST", CHANGE_PASSWORD): ["password_changed", "login"],
    ("POST", CONFIRM): ["link_created", "user_changed"],
}

# The same for every command that changes something. The user is bob, who holds users:write, or
# eve, who is inactive.
COMMANDS = {
    "user create": ["ada", "ada@example.com"],
    "user create-admin": ["ada", "ada@example.com"],
    "user set-password": ["bob"],
    "user deactivate": ["bob"],
    "user activate": ["eve"],
    "user delete": ["bob"],
    "permission grant": ["bob", "users:read"],
    "permission revoke": ["bob", "users:write"],
    "mail retry": [],
}
READING_COMMANDS = {"user list", "mail list"}
# It sends what recorded changes have queued, as a running app does.
SENDING_COMMANDS = {"mail send"}


def snapshot(rows: Engine) -> dict[str, list[Any]]:
    """Every row but the events, and the counters of the throttle, which belong to no user."""
    tables = [t for t in Base.metadata.sorted_tables if t.name not in {"audit_events", "throttles"}]
    with rows.connect() as connection:
        return {
            table.name: [*connection.execute(select(table).order_by(*table.primary_key))]
            for table in tables
        }


def events(rows: Engine) -> Events:
    query = select(AuditEvent.__table__).order_by(AuditEvent.id)
    with rows.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def listed(client: TestClient, headers: dict[str, str], **params: Any) -> Events:
    response = client.get(AUDIT, params=params, headers=headers)
    assert response.status_code == 200, response.text
    found: Events = response.json()["items"]
    return found


def writes(app: FastAPI) -> list[tuple[str, str]]:
    return [(method, path) for method, path, _ in operations(app) if method != "GET"]


def test_l1_every_route_that_writes_has_an_example_here(shared_app: FastAPI) -> None:
    assert set(writes(shared_app)) == set(CHANGES)


@pytest.mark.parametrize("route", CHANGES, ids=" ".join)
def test_l1_every_change_over_http_leaves_an_event(
    app: FastAPI,
    client: TestClient,
    make_settings: MakeSettings,
    admin: dict[str, str],
    make_user: MakeUser,
    log_in: LogIn,
    rows: Engine,
    route: tuple[str, str],
) -> None:
    make_user("bob")
    log_in("bob")
    log_in("admin")
    client.post(KEYS, json=NEW_KEY, headers=admin)
    add_links(rows)
    if route in BY_VISITORS:
        app.state.settings = make_settings(registration="open")
    before, known = snapshot(rows), len(events(rows))
    method, path = route
    path = path.replace("{user_id}", "2").replace("{session_id}", "3").replace("{key_id}", "1")

    response = client.request(method, path, headers=admin, **CHANGES[route])

    assert response.is_success, response.text
    assert snapshot(rows) != before
    new = events(rows)[known:]
    assert len(new) == (2 if route in TWO_EVENTS else route not in CHANGES_OF_NO_ACCOUNT)
    if route in TWO_EVENTS:
        assert [found["action"] for found in new] == TWO_EVENTS[route]
    for found in new:
        assert found["request_id"] == response.headers["X-Request-ID"]
        assert found["address"] == "testclient"
        actor = (None, "anonymous") if route in BY_VISITORS else (1, "admin")
        assert (found["actor_id"], found["actor_name"]) == actor
        assert bool(found["session_id"]) == (route not in BY_VISITORS)
        assert found["command"] is None


def commands() -> Iterator[str]:
    for name, group in (("user", user), ("permission", permission), ("mail", mail)):
        for command in typer.main.get_group(group).commands:
            yield f"{name} {command}"


def test_l1_every_command_that_writes_has_an_example_here() -> None:
    assert {*commands()} == {*COMMANDS} | READING_COMMANDS | SENDING_COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_l1_every_change_by_a_command_leaves_an_event(
    make_user: MakeUser,
    rows: Engine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    make_user("bob", "users:write")
    make_user("admin", "users:write", "permissions:write")
    make_user("eve", is_active=False)
    refused = {"recipient": "bob@example.com", "template": "new_login", "variables": {}}
    with rows.begin() as connection:
        given_up = insert(OutgoingMail).values(queued_at=datetime.now(UTC), last_error="refused")
        connection.execute(given_up.values(refused))
    monkeypatch.setenv("DATABASE_URL", database_url)
    # A name that is not UTF-8 is still a name.
    monkeypatch.setenv("LOGNAME", "ope\udcffrator")
    before = snapshot(rows)

    result = CliRunner().invoke(cli, [*command.split(), *COMMANDS[command]], input=NEW_PASSWORD)

    assert result.exit_code == 0, result.output
    assert snapshot(rows) != before
    assert events(rows)
    for found in events(rows):
        assert (found["command"], found["actor_name"]) == (command, "ope?rator")
        assert (found["actor_id"], found["session_id"], found["address"]) == (None, None, None)


def test_l1_an_event_outlives_the_names_and_ids_in_it(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("bob", "users:write")
    bob = log_in("bob")
    client.patch(ME, json={"username": "robert", "email": "robert@example.com"}, headers=bob)
    client.post(USERS, json=ADA, headers=bob)
    client.delete(f"{USERS}/2", headers=admin)

    deleted, created, renamed, logged_in = listed(client, admin)[:4]

    assert (deleted["action"], deleted["actor_name"]) == ("user_deleted", "admin")
    assert (deleted["target_type"], deleted["target_id"]) == ("users", 2)
    assert deleted["target_name"] == "robert"
    assert (created["action"], created["actor_name"]) == ("user_created", "robert")
    assert (created["actor_id"], created["target_name"]) == (2, "ada")
    assert (renamed["action"], renamed["target_name"]) == ("user_changed", "bob")
    assert renamed["changes"] == {"changed": ["email", "username"]}
    assert (logged_in["action"], logged_in["session_id"]) == ("login", renamed["session_id"])


def test_l1_a_grant_names_the_permissions(
    client: TestClient, admin: dict[str, str], make_user: MakeUser
) -> None:
    make_user("bob", "users:write")
    path = f"{USERS}/2/permissions"
    client.put(path, json={"permissions": ["users:read"]}, headers=admin)
    client.put(path, json={"permissions": ["users:read"]}, headers=admin)

    (grant,) = listed(client, admin, target_id=2)

    assert grant["action"] == "grant"
    assert grant["changes"] == {"granted": ["users:read"], "revoked": ["users:write"]}


def test_l1_a_link_leaves_events_of_its_request_and_of_its_use(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    make_user("admin")
    bob_id = make_user("bob")
    assert client.post(FORGOT, json={"email": "bob@example.com"}).status_code == 204
    add_links(rows)
    assert client.post(CONFIRM, json={"token": Purpose.RESTORE_EMAIL}).status_code == 204

    asked, sent, restored = events(rows)
    assert (asked["action"], asked["changes"]) == ("link_created", {"purpose": ["reset_password"]})
    assert (asked["target_type"], asked["target_id"]) == ("users", bob_id)
    assert (sent["action"], sent["target_id"]) == ("link_created", bob_id)
    assert (restored["action"], restored["target_name"]) == ("user_changed", "bob")
    assert restored["changes"] == {"changed": ["password"]}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", USERS, BOB),
        ("PATCH", f"{USERS}/2", {"username": "admin"}),
        ("DELETE", f"{USERS}/1", None),
        ("PUT", f"{USERS}/1/permissions", {"permissions": []}),
        ("POST", CHANGE_PASSWORD, {"current_password": WRONG, "new_password": NEW_PASSWORD}),
    ],
)
def test_l1_a_change_that_fails_leaves_no_event(
    client: TestClient,
    admin: dict[str, str],
    make_user: MakeUser,
    rows: Engine,
    method: str,
    path: str,
    body: object,
) -> None:
    make_user("bob")
    before = events(rows)

    response = client.request(method, path, json=body, headers=admin)

    assert response.status_code in {403, 409}
    assert events(rows) == before


def test_l1_a_login_that_replaces_a_session_names_the_session(
    client: TestClient, admin: dict[str, str], rows: Engine
) -> None:
    form = {"username": "admin", "password": PASSWORD}

    assert client.post(LOGIN, data=form, headers=admin).status_code == 200

    first, second, ended = events(rows)
    assert (first["action"], second["action"], ended["action"]) == ("login", "login", "logout")
    assert (ended["target_type"], ended["target_id"]) == ("sessions", first["session_id"])
    assert ended["session_id"] == second["session_id"] != first["session_id"]


def test_l1_a_client_cannot_choose_the_address_in_an_event(
    client: TestClient, admin: dict[str, str], rows: Engine
) -> None:
    forged = {"X-Forwarded-For": "192.0.2.9", "X-Request-ID": "forged"}

    client.post(USERS, json=ADA, headers={**admin, **forged})

    assert events(rows)[-1]["address"] == "testclient"
    assert events(rows)[-1]["request_id"] != "forged"


def test_l2_the_trail_contains_no_secret_and_no_value(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("bob")
    bob = log_in("bob")
    client.patch(f"{USERS}/2", json={"password": NEW_PASSWORD, "email": "n@x.org"}, headers=admin)
    client.post(USERS, json=ADA, headers=admin)

    trail = json.dumps(events(rows), default=str)

    stored = [
        *execute(rows, "SELECT password FROM users"),
        *execute(rows, "SELECT email FROM users"),
    ]
    hashes = [*execute(rows, "SELECT token_hash FROM sessions")]
    tokens = [header["Authorization"].removeprefix("Bearer ") for header in (admin, bob)]
    secrets = [PASSWORD, NEW_PASSWORD, *tokens, *(str(value) for (value,) in stored + hashes)]
    assert [secret for secret in secrets if secret in trail] == []


def test_l2_only_its_permission_reads_the_trail(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("auditor", "audit:read")
    make_user("manager", "users:read", "users:write", "permissions:read", "permissions:write")

    assert client.get(AUDIT).status_code == 401
    assert client.get(AUDIT, headers=log_in("manager")).status_code == 403
    assert listed(client, log_in("auditor"))
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert client.request(method, AUDIT, headers=admin).status_code == 405
        assert client.request(method, f"{AUDIT}/1", headers=admin).status_code == 404


def add_events(rows: Engine, *ages: timedelta, **values: object) -> None:
    now = datetime.now(UTC)
    standard = {
        "action": "tested",
        "actor_name": "operator",
        "target_type": "books",
        "target_id": 1,
        "target_name": "Atlas",
        "changes": {},
        **values,
    }
    with rows.begin() as connection:
        connection.execute(
            insert(AuditEvent), [{"created_at": now - age, **standard} for age in ages]
        )


def test_l3_events_are_listed_by_person_object_and_time_the_newest_first(
    client: TestClient, admin: dict[str, str], rows: Engine
) -> None:
    # The clock was set back between the second and the third.
    ages = [timedelta(days=days) for days in (5, 3, 4, 1, 3)]
    add_events(rows, *ages, actor_id=7)
    add_events(rows, timedelta(days=2), actor_id=8, target_id=2)

    def ids(**params: Any) -> list[int]:
        found = []
        cursor = None
        while True:
            page = {**params, "limit": 2, **({"cursor": cursor} if cursor else {})}
            response = client.get(AUDIT, params=page, headers=admin)
            assert response.status_code == 200, response.text
            found += [item["id"] for item in response.json()["items"]]
            cursor = response.json()["next"]
            if cursor is None:
                return found

    # The first one is the login of the administrator.
    in_order = [5, 7, 6, 3, 4, 2]
    assert ids() == [1, *in_order]
    assert ids(actor_id=7) == [5, 6, 3, 4, 2]
    assert ids(target_type="books", target_id=2) == [7]
    assert ids(target_id=1) == [1]
    assert ids(target_type="books", target_id=1, actor_id=8) == []
    since = datetime.now(UTC) - timedelta(days=3, hours=12)
    until = datetime.now(UTC) - timedelta(days=1, hours=12)
    assert ids(since=since.isoformat(), until=until.isoformat()) == [7, 6, 3]


def test_l3_a_page_has_no_event_after_the_end_of_the_list_or_before_its_cursor(
    client: TestClient, admin: dict[str, str], rows: Engine
) -> None:
    add_events(rows, *[timedelta(days=days) for days in (5, 4, 4, 3)], target_id=9)
    wanted: dict[str, Any] = {"target_type": "books", "target_id": 9}
    times = [event["created_at"] for event in listed(client, admin, **wanted)]
    newest, second = [
        client.get(AUDIT, params={**wanted, "limit": n}, headers=admin).json()["next"]
        for n in (1, 2)
    ]

    def ids(cursor: str, until: str) -> list[int]:
        found = listed(client, admin, **wanted, cursor=cursor, until=until)
        return [event["id"] for event in found]

    assert times[1] == times[2]
    assert ids(newest, times[0]) == ids(newest, "2999-01-01T00:00:00Z") == [4, 3, 2]
    assert ids(second, times[0]) == [3, 2]
    assert ids(newest, times[1]) == ids(second, times[1]) == [2]
    assert ids(second, times[3]) == []


def test_l3_a_page_after_the_last_event_has_expired_is_empty(
    client: TestClient, admin: dict[str, str], rows: Engine
) -> None:
    add_events(rows, *[timedelta(days=days) for days in (3, 2, 1)])
    cursor = client.get(AUDIT, params={"limit": 2}, headers=admin).json()["next"]
    execute(rows, "DELETE FROM audit_events")

    response = client.get(AUDIT, params={"limit": 2, "cursor": cursor}, headers=admin)

    assert response.json() == {"items": [], "next": None}


@pytest.mark.skipif(bool(SERVER), reason="PostgreSQL scans tables that are as small as here")
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"actor_id": 7},
        {"target_type": "books", "target_id": 1},
        {"since": "2020-01-01T00:00:00Z", "until": "2030-01-01T00:00:00Z"},
        {"actor_id": 7, "since": "2020-01-01T00:00:00Z"},
    ],
    ids=lambda params: " ".join(params) or "all",
)
@pytest.mark.parametrize("limit", [3, 2], ids=["first page", "next page"])
def test_l3_no_list_scans_or_sorts_the_table(
    client: TestClient,
    admin: dict[str, str],
    rows: Engine,
    sent: Statements,
    params: Any,
    limit: int,
) -> None:
    add_events(rows, *[timedelta(days=days) for days in range(5)], actor_id=7)
    page = client.get(AUDIT, params={**params, "limit": limit}, headers=admin).json()
    cursor = {"cursor": page["next"]} if limit == 2 else {}
    sent.clear()

    client.get(AUDIT, params={**params, **cursor, "limit": limit}, headers=admin)

    (statement, values), *_ = [s for s in reversed(sent) if "ORDER BY audit_events" in s[0]]
    with rows.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    text = "\n".join(str(row[-1]) for row in plan)
    assert "USING INDEX ix_audit_events" in text
    assert "TEMP B-TREE" not in text
    if params or cursor:
        assert "SCAN" not in text


def test_l4_old_events_are_deleted_in_bounded_steps(
    make_settings: MakeSettings, make_user: MakeUser, rows: Engine
) -> None:
    make_user("admin", "audit:read")
    add_events(rows, *[timedelta(days=11)] * (audit._MAX_DELETED + 20), timedelta(days=9))
    form = {"username": "admin", "password": PASSWORD}
    with TestClient(create_app(make_settings(audit_retention_days=10))) as client:
        left = []
        for _ in range(3):
            assert client.post(LOGIN, data=form).status_code == 200
            (count,) = execute(rows, "SELECT count(*) FROM audit_events WHERE action = 'tested'")
            left.append(count[0])

    assert left == [21, 1, 1]


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 101},
        {"cursor": "LTE"},
        # Of a list in the order of ids.
        {"cursor": "MQ", "until": "2026-01-01T00:00:00Z"},
        {"actor_id": 0},
        {"actor_id": 2**63},
        {"target_id": -1},
        {"target_id": 1, "target_type": "x" * 65},
        {"target_type": "\x00"},
        {"target_type": "\u202e"},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"until": "9999-12-31T23:59:59-14:00"},
        {"until": "9" * 5000},
        {"since": "1e999"},
        {"since": "0.5"},
        {"until": "1767225600"},
        {"since": "NaN"},
    ],
    ids=lambda params: repr(params)[:40],
)
def test_i1_i2_a_forged_filter_is_a_422(
    client: TestClient, admin: dict[str, str], params: dict[str, str | int]
) -> None:
    assert client.get(AUDIT, params=params, headers=admin).status_code == 422


@pytest.mark.parametrize("target_type", ["' OR 1=1 --", "%", "users'", "🐎"])
def test_i7_a_filter_is_text_and_never_sql(
    client: TestClient, admin: dict[str, str], target_type: str
) -> None:
    assert listed(client, admin, target_type=target_type, target_id=1) == []


def test_l3_the_trail_is_listed_on_the_command_line(
    client: TestClient,
    admin: dict[str, str],
    make_user: MakeUser,
    rows: Engine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_user("bob")
    client.patch(f"{USERS}/2", json={"email": "new@example.com"}, headers=admin)
    granted = {"granted": ["users:read"], "revoked": []}
    operator = {"actor_name": "op\x1b[31m", "command": "permission grant"}
    add_events(rows, timedelta(days=40), changes=granted, **operator)
    monkeypatch.setenv("DATABASE_URL", database_url)

    def run(*arguments: str) -> list[list[str]]:
        result = CliRunner().invoke(cli, ["audit", *arguments])
        assert result.exit_code == 0, result.output
        return [line.split("\t") for line in result.output.splitlines()]

    changed, logged_in, old = run()
    assert changed[1:6] == ["admin", "user_changed", "users/2 bob", "changed=email", "testclient"]
    assert logged_in[1:5] == ["admin", "login", "users/1 admin", "-"]
    assert old[1:4] == ["op?[31m (permission grant)", "tested", "books/1 Atlas"]
    assert old[4] == "granted=users:read"
    assert run("--by", "ADMIN") == [changed, logged_in]
    assert run("--on", "bob") == [changed]
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert run("--since", f"{tomorrow:%Y-%m-%d}") == []
    assert run("--limit", "1") == [changed]
    assert CliRunner().invoke(cli, ["audit", "--by", "nobody"]).exit_code == 1
    client.delete(f"{USERS}/2", headers=admin)
    # An event of something else with this name.
    add_events(rows, timedelta(), target_name="bob")
    assert [line[2] for line in run("--on", "BOB")] == ["user_deleted", "user_changed"]
    # Of two users who had the name, the last one counts.
    client.delete(f"{USERS}/{make_user('bob')}", headers=admin)
    assert [line[2] for line in run("--on", "bob")] == ["user_deleted"]


def test_l1_own_code_can_record_what_it_changes(
    app: FastAPI, client: TestClient, admin: dict[str, str], rows: Engine
) -> None:
    @app.post("/sell")
    async def sell_book(user: CurrentUser, session: SessionDep) -> None:
        target = audit.Target("books", 3, "Ä" * 300)
        await audit.record(session, user, "book_sold", target, changed=["price"])

    assert client.post("/sell", headers=admin).status_code == 200

    found = events(rows)[-1]
    assert (found["action"], found["target_type"], found["target_id"]) == ("book_sold", "books", 3)
    assert found["target_name"] == "Ä" * 255
    assert (found["actor_name"], found["changes"]) == ("admin", {"changed": ["price"]})
    assert (found["session_id"], found["api_key_id"]) == (1, None)
    key = client.post(KEYS, json=NEW_KEY, headers=admin).json()["key"]
    assert client.post("/sell", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert (events(rows)[-1]["session_id"], events(rows)[-1]["api_key_id"]) == (None, 1)
