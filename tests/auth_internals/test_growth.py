"""No request takes longer because a table has grown: every statement finds its rows by an index."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event

from app.core.database import Database
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
    fill,
    mails,
    operations,
    token_in,
)
from tests.conftest import MakeSettings

AUDIT, KEYS = "/api/v1/audit", "/api/v1/auth/keys"
FORGOT, RESET = "/api/v1/auth/password/forgot", "/api/v1/auth/password/reset"
REGISTER, COMPLETE = "/api/v1/auth/register", "/api/v1/auth/register/complete"
CHANGE_EMAIL, VERIFY = "/api/v1/auth/email/change", "/api/v1/auth/email/verify"
Statements = list[tuple[str, Any]]
# Neither grows with the number of users: the permissions that the code declares, and the schema.
SMALL = {"permissions", "sqlite_master"}


@pytest.fixture
def sent(app: FastAPI, client: TestClient) -> Statements:
    """All statements that the app sends, with their parameters."""
    found: Statements = []
    database: Database = app.state.database
    for engine in {*database._engines}:
        event.listen(
            engine.sync_engine, "before_cursor_execute", lambda *all: found.append(all[2:4])
        )
    return found


def use_links(client: TestClient, header: dict[str, str], rows: Engine) -> list[tuple[str, str]]:
    """Request a link of each kind and use it, as a user who chooses PASSWORD at last."""
    choice = {"username": "mia", "password": PASSWORD}
    links = [
        (REGISTER, "mia@example.com", COMPLETE, choice),
        (CHANGE_EMAIL, "newer@example.com", VERIFY, {}),
        (FORGOT, "newer@example.com", RESET, {"new_password": PASSWORD}),
    ]
    for request, email, use, values in links:
        asked = client.post(request, json={"email": email}, headers=header)
        assert asked.status_code == 204, asked.text
        body = {"token": token_in(mails(rows)[-1]), **values}
        used = client.post(use, json=body)
        assert used.status_code == 204, used.text
    return [("POST", path) for request, _, use, _ in links for path in (request, use)]


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
    names = ["users:read", "permissions:read"]
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
        ("GET", AUDIT, {"params": {"since": "2026-01-01T00:00:00Z"}}),
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
