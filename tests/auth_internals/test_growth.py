"""No request takes longer because a table has grown: every statement finds its rows by an index."""

import hashlib
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, insert, select, text

from app.auth.mail_sender import send_next
from app.auth.models import ApiKey, AuditEvent, LoginSession, OneTimeToken, OutgoingMail
from app.core.pagination import _encode_cursor
from app.models.user import Permission, User, user_permissions
from tests.auth_internals.helpers import (
    ADA,
    CHANGE_PASSWORD,
    LOGIN,
    LOGOUT,
    ME,
    NEW_PASSWORD,
    PASSWORD,
    PERMISSIONS,
    SESSIONS,
    USERS,
    LogIn,
    Statements,
    fill,
    mails,
    operations,
    token_in,
)
from tests.conftest import SERVER, MakeSettings

AUDIT, KEYS = "/api/v1/audit", "/api/v1/auth/keys"
FORGOT, RESET = "/api/v1/auth/password/forgot", "/api/v1/auth/password/reset"
REGISTER, COMPLETE = "/api/v1/auth/register", "/api/v1/auth/register/complete"
CHANGE_EMAIL, CONFIRM = "/api/v1/auth/email/change", "/api/v1/auth/email/confirm"
THROTTLE = "INSERT INTO throttles (key_hash, attempts, since) VALUES (:key_hash, 1, :since)"
# All events of `add_rows` are between these two.
NEWEST, OLDEST = "2026-01-01T00:00:00Z", "2019-01-01T00:00:00Z"
FIRST_PAGE, LAST_PAGE = (
    {"cursor": _encode_cursor("-created_at", AuditEvent(id=1, created_at=time))}
    for time in (NEWEST, OLDEST)
)
# Neither grows with the number of users: the permissions that the code declares, and the schema.
SMALL = {"permissions", "sqlite_master"}


def use_links(client: TestClient, header: dict[str, str], rows: Engine) -> list[tuple[str, str]]:
    """Request a link of each kind and use it, as a user who chooses PASSWORD at last."""
    choice = {"username": "mia", "password": PASSWORD}
    links = [
        (REGISTER, "mia@example.com", COMPLETE, choice),
        (CHANGE_EMAIL, "newer@example.com", CONFIRM, {}),
        (FORGOT, "newer@example.com", RESET, {"new_password": PASSWORD}),
    ]
    for request, email, use, values in links:
        asked = client.post(request, json={"email": email}, headers=header)
        assert asked.status_code == 204, asked.text
        body = {"token": token_in(mails(rows)[-1]), **values}
        used = client.post(use, json=body)
        assert used.status_code == 204, used.text
    return [("POST", path) for request, _, use, _ in links for path in (request, use)]


def add_rows(rows: Engine, first: int, last: int, permission: str = "users:write") -> None:
    """Users with what belongs to each: found by searches and filters, and long expired."""
    old, numbers = datetime(2020, 1, 1, tzinfo=UTC), range(first, last)
    names = [f"ada-{number}" for number in numbers]
    hashes = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    users = [
        {"id": number, "username": name, "email": f"{name}@x.com", "password": "!"}
        for number, name in zip(numbers, names, strict=True)
    ]
    per_user: list[dict[str, Any]] = [
        {"user_id": number, "token_hash": token_hash, "created_at": old}
        for number, token_hash in zip(numbers, hashes, strict=True)
    ]
    use = {"last_used_at": old, "address": "", "user_agent": ""}
    event_ = {
        **{"created_at": old, "action": "x", "actor_id": 1, "actor_name": "x", "changes": {}},
        **{"target_type": "users", "target_id": 1, "target_name": "x"},
    }
    key = {"name": "x", "scopes": [], "expires_at": old}
    link = {"purpose": "register", "email": "x@x.com", "expires_at": old}
    links = [
        {**link, "user_id": each["user_id"], "token_hash": each["token_hash"]} for each in per_user
    ]
    mail = {"recipient": "x@x.com", "template": "new_login", "variables": {}, "queued_at": old}
    with rows.begin() as connection:
        connection.execute(insert(User), [{**user, "is_active": True} for user in users])
        is_theirs = Permission.name == permission
        permission_id = connection.scalars(select(Permission.id).where(is_theirs)).one()
        held = [{"user_id": number, "permission_id": permission_id} for number in numbers]
        connection.execute(insert(user_permissions), held)
        connection.execute(insert(OneTimeToken), links)
        connection.execute(insert(OutgoingMail), [mail | {"next_attempt_at": old}] * len(users))
        connection.execute(insert(OutgoingMail), [mail | {"next_attempt_at": None}] * len(users))
        connection.execute(insert(LoginSession), [{**each, **use} for each in per_user])
        connection.execute(insert(ApiKey), [{**each, **key} for each in per_user])
        counters = [{"key_hash": each, "since": "2020-01-01"} for each in hashes]
        connection.execute(text(THROTTLE), counters)
        connection.execute(insert(AuditEvent), [event_ for _ in numbers])


def steps_of(rows: Engine, sent: Statements) -> dict[str, int]:
    """Statement → how many of SQLite's instructions it takes. Changes nothing."""
    found: dict[str, int] = {}
    taken = count()

    def count_step() -> int:
        next(taken)
        return 0

    with closing(sqlite3.connect(str(rows.url.database), isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for statement, parameters in sent:
            if statement.split()[0] not in ("SELECT", "UPDATE", "DELETE"):
                continue
            each = parameters[0] if isinstance(parameters, list) else parameters
            connection.execute("BEGIN")
            connection.set_progress_handler(count_step, 1)
            before = next(taken)
            connection.execute(statement, each).fetchall()
            found[statement] = max(next(taken) - before, found.get(statement, 0))
            connection.set_progress_handler(None, 0)
            connection.execute("ROLLBACK")
    return found


def test_no_route_reads_a_whole_table(
    app: FastAPI,
    client: TestClient,
    make_settings: MakeSettings,
    admin: dict[str, str],
    log_in: LogIn,
    rows: Engine,
    sent: Statements,
) -> None:
    if rows.dialect.name != "sqlite":
        pytest.skip("PostgreSQL plans by the number of rows")
    user_id = client.post(USERS, json=ADA, headers=admin).json()["id"]
    path, ada = f"{USERS}/{user_id}", log_in("ada")
    names = ["users:read", "users:write"]
    other = client.get(SESSIONS, headers=ada).json()[0]["id"]
    new_password = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", USERS, {"params": {"limit": 1}}),
        ("GET", USERS, {"params": {"q": "ada"}}),
        ("GET", USERS, {"params": {"q": "a", "limit": 1}}),
        ("GET", path, {}),
        ("PATCH", path, {"json": {"username": "eve", "password": NEW_PASSWORD}}),
        ("PUT", f"{path}/permissions", {"json": {"permissions": names}}),
        ("GET", PERMISSIONS, {}),
        ("DELETE", f"{path}/sessions", {}),
        ("DELETE", path, {}),
        ("GET", ME, {}),
        ("PATCH", ME, {"json": {"email": "new@example.com"}}),
        ("GET", SESSIONS, {}),
        ("POST", KEYS, {"json": {"name": "backup", "scopes": []}}),
        ("GET", KEYS, {}),
        ("DELETE", f"{KEYS}/1", {}),
        ("GET", AUDIT, {"params": {"actor_id": 1}}),
        ("GET", AUDIT, {"params": {"target_id": 1}}),
        ("GET", AUDIT, {"params": {"since": NEWEST}}),
        ("GET", AUDIT, {"params": LAST_PAGE}),
        ("GET", AUDIT, {"params": {"since": OLDEST, "until": NEWEST, **LAST_PAGE}}),
        ("GET", AUDIT, {"params": {"actor_id": 1, "until": NEWEST, **LAST_PAGE}}),
        ("GET", AUDIT, {"params": {"target_id": 1, "until": NEWEST, **LAST_PAGE}}),
        ("GET", AUDIT, {"params": {"until": OLDEST, **FIRST_PAGE}}),
        ("DELETE", f"{SESSIONS}/{other + 100}", {}),
        ("DELETE", SESSIONS, {}),
        ("POST", CHANGE_PASSWORD, {"json": new_password}),
    ]
    for method, url, options in requests:
        status = client.request(method, url, headers=admin, **options).status_code
        assert status < 400 or str(other + 100) in url, (method, url, status)
    app.state.settings = make_settings(registration="open")
    with_links = use_links(client, log_in("admin", NEW_PASSWORD), rows)
    client.post(LOGOUT, headers=log_in("admin"))
    assert client.portal
    assert client.portal.call(send_next, app.state.database, make_settings())
    asked = {
        (method, url.replace(f"/{user_id}", "/1").replace(f"/{other + 100}", "/1"))
        for method, url, _ in requests
    }
    asked |= {("POST", url) for url in (LOGIN, LOGOUT, USERS)} | {*with_links}
    known = {(method, fill(url)) for method, url, _ in operations(app) if url.startswith("/api")}

    plans = {}
    with rows.connect() as connection:
        for statement, parameters in sent:
            if statement.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE"):
                # One statement for several rows has a list of parameters.
                each = parameters[0] if isinstance(parameters, list) else parameters
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", each)
                plans[statement] = [str(row[-1]) for row in plan]

    assert known - asked == {("GET", "/api/v1/")}
    assert len(plans) > 20
    read = {(s, step.split()[1]) for s, steps in plans.items() for step in steps if "SCAN" in step}
    searches = {name for _, name in read if name.endswith("_search")}
    assert searches == {"users_search"}
    assert [(s, name) for s, name in read if name not in SMALL | searches | {"CONSTANT"}] == []

    # An index that finds too many rows looks good in a plan.
    add_rows(rows, 1_000, 2_000)
    few = steps_of(rows, sent)
    add_rows(rows, 2_000, 6_000)
    many = steps_of(rows, sent)
    grown = {s: (few[s], many[s]) for s in few if many[s] > 1.2 * few[s] + 100}
    # A search reads the pieces of its index, which a change of a name merges from time to time.
    in_pieces = {s for s in grown if "UPDATE users" in s or " MATCH " in s}
    assert [s for s, (_, steps) in grown.items() if s not in in_pieces or steps > 2_000] == []


@pytest.mark.skipif(not SERVER, reason="the test above counts on SQLite")
def test_postgresql_finds_the_last_holder_of_a_permission_by_an_index(
    client: TestClient, admin: dict[str, str], rows: Engine, sent: Statements
) -> None:
    add_rows(rows, 1_000, 6_000, permission="users:read")
    with rows.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    path = f"{USERS}/1000/permissions"
    for names in (["users:write"], []):
        changed = client.put(path, json={"permissions": names}, headers=admin)
        assert changed.status_code == 200

    plans = []
    with rows.connect() as connection:
        for statement, parameters in sent:
            if "SELECT permissions.name" in statement and "LIMIT" in statement:
                found = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
                plans.append("\n".join(found.scalars()))

    assert len(plans) == 1
    assert "ix_user_permissions_permission_id" in plans[0]
    assert "Seq Scan on user" not in plans[0]
