"""Who may change which user."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.deps import CurrentUser, require, require_owner
from app.auth import account, api_keys, sessions, users
from app.auth.schemas import ApiKeyCreate, OwnUserUpdate
from app.auth.sessions import authenticate
from app.core.database import Database
from app.core.logging import user_id as user_id_of_request
from app.errors import AppError, PermissionDenied, Unauthenticated
from app.main import create_app
from app.models import metadata
from app.permissions import PUBLIC_ROUTES, PermissionName
from app.schemas.user import UserCreate
from tests.auth_internals.helpers import (
    ADA,
    BOB,
    CHANGE_PASSWORD,
    LOGOUT,
    ME,
    NEW_PASSWORD,
    PASSWORD,
    PERMISSIONS,
    SESSIONS,
    USERS,
    LogIn,
    MakeUser,
    execute,
    fill,
    grant,
    header_of,
    operations,
    token_of,
)
from tests.conftest import MakeSettings


def needed(operation: dict[str, list[dict[str, list[str]]]]) -> list[str]:
    schemes = operation.get("security", [])
    return [scope for scheme in schemes for scopes in scheme.values() for scope in scopes]


def test_every_declared_permission_has_a_row(rows: Engine) -> None:
    names = {name for (name,) in execute(rows, "SELECT name FROM permissions")}

    assert names >= {name.value for name in PermissionName}


def test_a_permission_that_is_not_declared_cannot_be_required() -> None:
    with pytest.raises(ValueError, match=r"not declared in app/permissions\.py.*users:read"):
        require("users:reed")


def test_z1_every_route_needs_a_login_unless_it_is_public(
    shared_app: FastAPI, client: TestClient
) -> None:
    for method, path, operation in operations(shared_app):
        response = client.request(method, fill(path))
        if (method, path) in PUBLIC_ROUTES:
            assert response.status_code != 401, path
            assert "security" not in operation
        else:
            assert response.status_code == 401, (method, path)
            assert response.headers["www-authenticate"] == "Bearer"
            assert "401" in operation["responses"]


def test_z2_each_role_may_do_exactly_what_its_permissions_allow(
    shared_app: FastAPI, client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    """No permission, each one alone, and all of them, against every route and method."""
    roles: list[tuple[str, ...]] = [(), *((name,) for name in PermissionName), (*PermissionName,)]
    for number, role in enumerate(roles):
        make_user(f"role-{number}", *role)
        header = log_in(f"role-{number}")
        for method, path, operation in operations(shared_app):
            if (method, path) in PUBLIC_ROUTES or path.startswith("/api/v1/auth"):
                continue
            status = client.request(method, fill(path, "999999"), headers=header).status_code
            assert (status == 403) == (not set(needed(operation)) <= set(role)), (role, path)
            assert status != 401


def test_z3_whether_a_user_exists_is_only_told_to_those_who_may_see_users(
    client: TestClient, visitor: dict[str, str], make_user: MakeUser
) -> None:
    places = f"{USERS}/{make_user('ada')}", f"{USERS}/999999"
    calls: list[tuple[str, str, object]] = [
        ("GET", "", None),
        ("PATCH", "", {"is_active": False}),
        ("DELETE", "", None),
        ("PUT", "/permissions", {"permissions": []}),
        ("DELETE", "/sessions", None),
    ]
    for method, below, body in calls:
        existing, absent = (
            client.request(method, place + below, json=body, headers=visitor) for place in places
        )
        assert existing.status_code == absent.status_code == 403
        assert existing.json()["detail"] == absent.json()["detail"]


def test_z3_only_its_owner_and_holders_of_the_permission_change_what_belongs_to_a_user(
    app: FastAPI, client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    @app.patch("/books/{owner_id}")
    async def change(owner_id: int, user: CurrentUser) -> None:
        require_owner(user, owner_id, "users:write")

    owner = make_user("ada")
    make_user("bob", "users:read")
    make_user("eve", "users:write")

    statuses = {
        name: client.patch(f"/books/{owner}", headers=log_in(name)).status_code
        for name in ("ada", "bob", "eve")
    }
    assert statuses == {"ada": 200, "bob": 403, "eve": 200}


def test_z4_no_further_field_can_be_set(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, rows: Engine
) -> None:
    user_id = make_user("ada")
    before = execute(rows, "SELECT * FROM users ORDER BY id")
    bodies: dict[tuple[str, str], dict[str, object]] = {
        ("POST", USERS): {"username": "eve", "email": "eve@example.com", "password": PASSWORD},
        ("PATCH", ME): {},
        ("PATCH", f"{USERS}/{user_id}"): {},
        ("PUT", f"{USERS}/{user_id}/permissions"): {"permissions": []},
        ("POST", CHANGE_PASSWORD): {"current_password": "x", "new_password": PASSWORD},
    }
    for (method, path), body in bodies.items():
        for field in ("id", "is_admin", "created_at", "password_hash", "__class__", "user_id"):
            response = client.request(method, path, json={**body, field: 1}, headers=admin)
            assert response.status_code == 422, (path, field)
    for field in ("is_active", "permissions", "password"):
        assert client.patch(ME, json={field: True}, headers=admin).status_code == 422
    for field in ("is_active", "permissions"):
        assert client.post(USERS, json={**ADA, field: True}, headers=admin).status_code == 422

    assert execute(rows, "SELECT * FROM users ORDER BY id") == before


def test_z5_nobody_grants_a_permission_that_they_lack(
    client: TestClient, manager: dict[str, str], make_user: MakeUser
) -> None:
    ada = make_user("ada")
    myself = client.get(ME, headers=manager).json()["id"]

    assert grant(client, manager, ada, "users:write") == (200, ["users:write"])
    assert grant(client, manager, ada, "users:read")[0] == 403
    assert grant(client, manager, myself, *PermissionName)[0] == 403


@pytest.mark.parametrize(
    "change", [{"is_active": False}, {"password": PASSWORD}, {"email": "a@b.de"}]
)
def test_z5_nobody_changes_a_user_with_more_permissions(
    client: TestClient,
    manager: dict[str, str],
    admin: dict[str, str],
    rows: Engine,
    change: dict[str, object],
) -> None:
    above = client.get(ME, headers=admin).json()["id"]
    before = execute(rows, "SELECT * FROM users ORDER BY id")

    assert client.patch(f"{USERS}/{above}", json=change, headers=manager).status_code == 403
    assert client.delete(f"{USERS}/{above}", headers=manager).status_code == 403
    assert client.delete(f"{USERS}/{above}/sessions", headers=manager).status_code == 403
    assert grant(client, manager, above)[0] == 403
    assert execute(rows, "SELECT * FROM users ORDER BY id") == before
    assert client.get(ME, headers=admin).status_code == 200


def test_z5_why_a_password_is_rejected_tells_nothing_about_a_user_above(
    client: TestClient, manager: dict[str, str], admin: dict[str, str]
) -> None:
    above = client.get(ME, headers=admin).json()["id"]

    for password in ("admin seven wet otters", NEW_PASSWORD):
        change = {"password": password}
        assert client.patch(f"{USERS}/{above}", json=change, headers=manager).status_code == 403


def test_z5_the_current_password_cannot_be_bypassed_for_oneself(
    client: TestClient, admin: dict[str, str]
) -> None:
    myself = client.get(ME, headers=admin).json()["id"]

    response = client.patch(f"{USERS}/{myself}", json={"password": NEW_PASSWORD}, headers=admin)

    assert response.status_code == 403
    assert response.json()["detail"] == "Change your own password with your current one."


def test_z5_only_holders_of_every_declared_permission_can_manage_an_undeclared_one(
    client: TestClient,
    make_user: MakeUser,
    manager: dict[str, str],
    admin: dict[str, str],
    rows: Engine,
) -> None:
    """The code no longer declares it, but users may still have it."""
    execute(rows, "INSERT INTO permissions (name, description) VALUES ('retired', '')")
    carl, eve = make_user("carl", "retired"), make_user("eve", "retired")

    assert client.delete(f"{USERS}/{carl}", headers=manager).status_code == 403
    assert grant(client, manager, carl)[0] == 403
    assert grant(client, admin, carl) == (200, [])
    assert client.delete(f"{USERS}/{eve}", headers=admin).status_code == 204
    listed = client.get(PERMISSIONS, headers=admin).json()["items"]
    assert {item["name"] for item in listed} == {name.value for name in PermissionName}


def test_z6_an_unknown_permission_changes_nothing(
    client: TestClient, admin: dict[str, str], make_user: MakeUser
) -> None:
    ada = make_user("ada", "users:read")

    response = client.put(
        f"{USERS}/{ada}/permissions",
        json={"permissions": ["users:write", "no:such", "permissions:read"]},
        headers=admin,
    )

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["body", "permissions", "1"]
    held = client.get(f"{USERS}/{ada}", headers=admin).json()["permissions"]
    assert [permission["name"] for permission in held] == ["users:read"]


def test_z7_a_revoked_permission_is_gone_with_the_next_request(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, log_in: LogIn
) -> None:
    user_id = make_user("ada", "users:read")
    ada = log_in("ada")
    assert client.get(USERS, headers=ada).status_code == 200

    grant(client, admin, user_id)

    assert client.get(USERS, headers=ada).status_code == 403


def test_z8_the_last_administrator_stays(client: TestClient, admin: dict[str, str]) -> None:
    me = client.get(ME, headers=admin).json()["id"]

    statuses = [
        grant(client, admin, me, "users:read")[0],
        client.patch(f"{USERS}/{me}", json={"is_active": False}, headers=admin).status_code,
        client.delete(f"{USERS}/{me}", headers=admin).status_code,
    ]

    assert statuses == [409] * 3
    assert client.get(ME, headers=admin).status_code == 200


@pytest.mark.parametrize("name", ["users:write", "permissions:write"])
def test_z8_the_last_holder_of_either_permission_to_change_users_stays(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, name: str
) -> None:
    """Without one, only the command line could help."""
    me = client.get(ME, headers=admin).json()["id"]
    make_user("other", *(other for other in PermissionName if other != name))
    make_user("inactive", *PermissionName, is_active=False)
    rest = [other.value for other in PermissionName if other != name]

    refused = [
        client.put(f"{USERS}/{me}/permissions", json={"permissions": rest}, headers=admin),
        client.patch(f"{USERS}/{me}", json={"is_active": False}, headers=admin),
        client.delete(f"{USERS}/{me}", headers=admin),
    ]

    assert [response.status_code for response in refused] == [409] * 3
    details = {response.json()["detail"] for response in refused}
    assert details == {f"This is the last active user who holds {name}."}
    assert client.get(USERS, headers=admin).status_code == 200


@pytest.mark.parametrize("how", ["demote", "deactivate", "delete"])
def test_z8_the_last_two_holders_of_users_write_cannot_remove_each_other(
    make_settings: MakeSettings, make_user: MakeUser, rows: Engine, how: str
) -> None:
    """At once, each through another worker, ten times. A third user may grant permissions."""
    workers = [TestClient(create_app(make_settings())) for _ in range(2)]
    names, held = ("ada", "bob"), ["users:write"] + ["permissions:write"] * (how == "demote")
    with workers[0], workers[1], ThreadPoolExecutor(2) as both:
        assert {worker.get(ME).status_code for worker in workers} == {401}
        for _ in range(10):
            for table in ("sessions", "user_permissions", "users"):
                execute(rows, f"DELETE FROM {table}")
            make_user("granter", "permissions:write")
            ids = [make_user(name, *held) for name in names]
            headers = [header_of(workers[0], name) for name in names]

            def remove(
                who: int, ids: list[int] = ids, headers: list[dict[str, str]] = headers
            ) -> int:
                path, client = f"{USERS}/{ids[1 - who]}", workers[who]
                if how == "demote":
                    return grant(client, headers[who], ids[1 - who])[0]
                if how == "deactivate":
                    change = {"is_active": False}
                    return client.patch(path, json=change, headers=headers[who]).status_code
                return client.delete(path, headers=headers[who]).status_code

            statuses = sorted(both.map(remove, range(2)))

            left = execute(
                rows,
                "SELECT count(*) FROM users u JOIN user_permissions l ON l.user_id = u.id "
                "JOIN permissions p ON p.id = l.permission_id "
                "WHERE p.name = 'users:write' AND u.is_active",
            )
            assert left == [(1,)], statuses
            assert statuses[1] in {401, 403, 409}


def test_z8_an_inactive_administrator_does_not_count(
    client: TestClient, admin: dict[str, str], make_user: MakeUser
) -> None:
    make_user("gone", *PermissionName, is_active=False)
    me = client.get(ME, headers=admin).json()["id"]

    assert client.delete(f"{USERS}/{me}", headers=admin).status_code == 409


@pytest.mark.parametrize("how", ["demote", "deactivate", "delete"])
def test_z8_two_administrators_cannot_remove_each_other(
    make_settings: MakeSettings, make_user: MakeUser, rows: Engine, how: str
) -> None:
    """At once, each through another worker, ten times."""
    workers = [TestClient(create_app(make_settings())) for _ in range(2)]
    with workers[0], workers[1], ThreadPoolExecutor(2) as both:
        # FastAPI builds routes with the first request, which two threads must not do at once.
        assert {worker.get(ME).status_code for worker in workers} == {401}
        for _ in range(10):
            for table in ("sessions", "user_permissions", "users"):
                execute(rows, f"DELETE FROM {table}")
            ids = [make_user(name, *PermissionName) for name in ("ada", "bob")]
            headers = [header_of(workers[0], name) for name in ("ada", "bob")]

            def remove(
                who: int, ids: list[int] = ids, headers: list[dict[str, str]] = headers
            ) -> int:
                path, client = f"{USERS}/{ids[1 - who]}", workers[who]
                if how == "demote":
                    return grant(client, headers[who], ids[1 - who])[0]
                if how == "deactivate":
                    change = {"is_active": False}
                    return client.patch(path, json=change, headers=headers[who]).status_code
                return client.delete(path, headers=headers[who]).status_code

            statuses = sorted(both.map(remove, range(2)))

            left = execute(
                rows,
                "SELECT count(*) FROM users u JOIN user_permissions l ON l.user_id = u.id "
                "JOIN permissions p ON p.id = l.permission_id "
                "WHERE p.name = 'permissions:write' AND u.is_active",
            )
            assert left == [(1,)], statuses
            assert statuses[0] in {200, 204}
            assert statuses[1] in {401, 403, 409}


def test_z9_no_response_has_a_hash_or_a_password(
    shared_app: FastAPI, client: TestClient, admin: dict[str, str]
) -> None:
    client.post("/api/v1/auth/keys", json={"name": "backup", "scopes": []}, headers=admin)
    for method, path, _ in operations(shared_app):
        if method == "GET":
            response = client.get(fill(path), headers=admin)
            assert response.status_code == 200, path
            text = response.text
            assert "argon2" not in text
            assert '"password"' not in text
            assert "token_hash" not in text


def test_i12_a_get_request_changes_nothing(
    shared_app: FastAPI, client: TestClient, admin: dict[str, str], rows: Engine
) -> None:
    def everything() -> list[object]:
        # The app, which runs, sends the emails of the others.
        tables = metadata.tables.keys() - {"outgoing_mails"}
        return [execute(rows, f"SELECT * FROM {table} ORDER BY 1, 2") for table in sorted(tables)]

    before = everything()
    for method, path, _ in operations(shared_app):
        if method == "GET":
            client.get(fill(path), headers=admin)

    assert everything() == before


@pytest.mark.parametrize(
    ("in_between", "refusal"),
    [
        ("DELETE FROM sessions", Unauthenticated),
        ("UPDATE users SET is_active = false", Unauthenticated),
        ("DELETE FROM sessions; DELETE FROM user_permissions; DELETE FROM users", Unauthenticated),
        ("DELETE FROM user_permissions", PermissionDenied),
    ],
)
def test_t4_z7_a_change_that_waited_is_refused_if_its_actor_was_removed_in_between(
    make_settings: MakeSettings,
    make_user: MakeUser,
    log_in: LogIn,
    rows: Engine,
    in_between: str,
    refusal: type[AppError],
) -> None:
    """The caller is checked again, in the transaction of the change."""
    user_id = make_user("ada", *PermissionName)
    token = token_of(log_in("ada"))
    settings = make_settings()

    async def attempt() -> list[type[AppError] | None]:
        async with Database(settings) as database:
            async with database.readers() as session:
                caller = await authenticate(session, settings, token)
            assert caller
            assert caller.session_id
            own_session = caller.session_id
            new_key = ApiKeyCreate(name="backup", scopes=[])
            for statement in in_between.split(";"):
                execute(rows, statement)
            changes: list[Callable[[AsyncSession], Awaitable[object]]] = [
                lambda session: users.create_user(session, settings, caller, UserCreate(**BOB)),
                lambda session: users.replace_permissions(session, settings, caller, user_id, []),
                lambda session: account.update_own_user(
                    database,
                    session,
                    settings,
                    caller,
                    OwnUserUpdate(username="adam"),
                    "testclient",
                ),
                lambda session: api_keys.create_key(session, caller, new_key),
                lambda session: api_keys.delete_key(session, caller, 1),
                lambda session: sessions.revoke_others(session, caller),
                lambda session: sessions.revoke_own(session, caller, own_session),
            ]
            return [await refused(database, change) for change in changes]

    refusals = asyncio.run(attempt())

    assert refusals[:2] == [refusal] * 2
    # Changing your own user needs no permission, only a login session.
    assert refusals[2:] == [Unauthenticated if refusal is Unauthenticated else None] * 5
    assert execute(rows, "SELECT count(*) FROM users WHERE username = 'bob'") == [(0,)]


async def refused(
    database: Database, change: Callable[[AsyncSession], Awaitable[object]]
) -> type[AppError] | None:
    try:
        async with database.writers.begin() as session:
            await change(session)
    except AppError as error:
        return type(error)
    return None


def test_x4_security_events_are_logged_with_the_user_who_caused_them(
    client: TestClient,
    admin: dict[str, str],
    visitor: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    events: list[tuple[object, int | None]] = []

    def note(record: logging.LogRecord) -> bool:
        events.append((getattr(record, "event", None), user_id_of_request.get()))
        return True

    caplog.handler.addFilter(note)
    ada = client.post(USERS, json=ADA, headers=admin).headers["location"]
    client.patch(ada, json={"username": "eve"}, headers=admin)
    client.put(f"{ada}/permissions", json={"permissions": ["users:read"]}, headers=admin)
    client.delete(f"{ada}/sessions", headers=admin)
    client.delete(ada, headers=visitor)
    client.delete(ada, headers=admin)
    client.delete(SESSIONS, headers=visitor)
    client.post(LOGOUT, headers=visitor)

    assert [event for event in events if event[0]] == [
        ("user_created", 1),
        ("user_changed", 1),
        ("grant", 1),
        ("sessions_revoked", 1),
        ("denied", 2),
        ("user_deleted", 1),
        ("sessions_revoked", 2),
        ("logout", 2),
    ]
    (line,) = [vars(record) for record in caplog.records if vars(record).get("event") == "grant"]
    assert (line["target_user_id"], line["granted"], line["revoked"]) == (3, ["users:read"], [])


def test_x4_a_changed_user_is_logged_with_the_names_of_its_fields_and_no_value(
    client: TestClient,
    admin: dict[str, str],
    visitor: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    ada = client.post(USERS, json=ADA, headers=admin).headers["location"]
    changes: list[dict[str, object]] = [
        {"username": "eve", "email": "ADA@example.com", "is_active": True},
        {"is_active": False, "password": NEW_PASSWORD},
        {"username": "eve"},
    ]

    for change in changes:
        assert client.patch(ada, json=change, headers=admin).status_code == 200
    client.patch(ME, json={"email": "new@example.com"}, headers=visitor)

    lines = [vars(record) for record in caplog.records]
    logged = [line for line in lines if line.get("event") == "user_changed"]
    assert [line["changed"] for line in logged] == [
        ["username"],
        ["is_active", "password"],
        ["email"],
    ]
    assert not any("eve" in str(line.values()) for line in logged)


def test_openapi_shows_which_permission_each_operation_needs(shared_app: FastAPI) -> None:
    found = {
        (method, path): needed(operation) for method, path, operation in operations(shared_app)
    }

    assert found["GET", USERS] == ["users:read"]
    assert found["PUT", f"{USERS}/{{user_id}}/permissions"] == ["permissions:write"]
    assert found["GET", ME] == []
