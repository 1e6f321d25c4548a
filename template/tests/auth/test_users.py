"""Who may do what to whom. The ids are those of docs/security.md in the template."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession

from app import logs
from app.api.auth import require
from app.db.session import Database
from app.errors import AppError
from app.main import create_app
from app.permissions import PERMISSIONS, PermissionName
from app.schemas.auth import AccountUpdate, PermissionCreate
from app.schemas.user import UserCreate
from app.security import PermissionDenied, Unauthenticated
from app.services import permissions, rights, sessions, users
from app.services.identity import identify
from app.services.sessions import Client
from tests.auth.conftest import (
    ADA,
    BOB,
    LOGIN,
    ME,
    PASSWORD,
    USERS,
    LogIn,
    MakeUser,
    execute,
    filled,
    move_clock,
    needed,
    operations,
    routes_of,
)
from tests.conftest import MakeSettings

# Whoever adds a route without a guard adds it here, and is asked why.
PUBLIC = {
    ("GET", "/api/v1/"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("POST", "/api/v1/auth/login"),
}


def test_every_declared_permission_has_a_description_and_a_row(rows: Engine) -> None:
    assert set(PERMISSIONS) == set(get_args(PermissionName))
    names = {name for (name,) in execute(rows, "SELECT name FROM permissions")}
    assert set(PERMISSIONS) <= names


def test_a_permission_that_is_not_declared_cannot_be_required() -> None:
    with pytest.raises(ValueError, match=r"not declared in app/permissions\.py"):
        require("users:reed")  # type: ignore[arg-type]


def test_z1_every_route_asks_who_you_are_unless_it_is_public(
    app: FastAPI, client: TestClient
) -> None:
    for method, path, operation in operations(app):
        answer = client.request(method, filled(path))
        if (method, path) in PUBLIC:
            assert answer.status_code != 401, path
            assert "security" not in operation
        else:
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "401" in operation["responses"]
    assert {(method, path) for method, path, _ in operations(app)} >= PUBLIC


def test_z1_no_route_hides_from_the_published_schema(make_settings: MakeSettings) -> None:
    """In production; in development there are the welcome page and the documentation besides."""
    app = create_app(make_settings(environment="production"))

    routes = [method for route in routes_of(app.router) for method in getattr(route, "methods", [])]

    assert len(routes) == len(list(operations(app))) > 10


def test_z2_each_role_may_do_just_what_its_permissions_say(
    app: FastAPI, client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    """Roles with no permission, each one alone, and all: against every route and method."""
    roles: list[tuple[str, ...]] = [(), *((name,) for name in PERMISSIONS), (*PERMISSIONS,)]
    for number, role in enumerate(roles):
        make_user(f"role-{number}", *role)
        header = log_in(f"role-{number}")
        for method, path, operation in operations(app):
            if (method, path) in PUBLIC or path.startswith("/api/v1/auth"):
                continue
            place = filled(path).replace("/1", "/999999")
            status = client.request(method, place, headers=header).status_code
            assert (status == 403) == (not set(needed(operation)) <= set(role)), (role, path)
            assert status != 401


def test_z3_whoever_may_not_see_accounts_learns_not_even_which_there_are(
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
        there, absent = (
            client.request(method, place + below, json=body, headers=visitor) for place in places
        )
        assert there.status_code == absent.status_code == 403
        assert there.json()["detail"] == absent.json()["detail"]


def test_z4_no_field_can_be_smuggled_in(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, rows: Engine
) -> None:
    number = make_user("ada")
    before = execute(rows, "SELECT * FROM users ORDER BY id")
    bodies: dict[tuple[str, str], dict[str, object]] = {
        ("POST", USERS): {"username": "eve", "email": "eve@example.com", "password": PASSWORD},
        ("PATCH", ME): {},
        ("PATCH", f"{USERS}/{number}"): {},
        ("PUT", f"{USERS}/{number}/permissions"): {"permissions": []},
        ("POST", "/api/v1/permissions"): {"name": "test:made"},
        ("PATCH", "/api/v1/permissions/1"): {},
        ("POST", "/api/v1/auth/password"): {"current_password": "x", "new_password": PASSWORD},
    }
    for (method, path), body in bodies.items():
        for field in ("id", "is_admin", "created_at", "password_hash", "__class__", "user_id"):
            answer = client.request(method, path, json={**body, field: 1}, headers=admin)
            assert answer.status_code == 422, (path, field)
    for field in ("is_active", "permissions", "password"):
        assert client.patch(ME, json={field: True}, headers=admin).status_code == 422
    for field in ("is_active", "permissions"):
        assert client.post(USERS, json={**ADA, field: True}, headers=admin).status_code == 422

    assert execute(rows, "SELECT * FROM users ORDER BY id") == before


@pytest.fixture
def manager(make_user: MakeUser, log_in: LogIn) -> dict[str, str]:
    """May grant and change accounts, but not see them."""
    make_user("manager", "users:write", "permissions:write")
    return log_in("manager")


def grant(
    client: TestClient, header: dict[str, str], user_id: int, *names: str
) -> tuple[int, list[str]]:
    path = f"{USERS}/{user_id}/permissions"
    answer = client.put(path, json={"permissions": names}, headers=header)
    return answer.status_code, [p["name"] for p in answer.json().get("permissions", [])]


def test_z5_nobody_grants_what_they_lack(
    client: TestClient, manager: dict[str, str], make_user: MakeUser
) -> None:
    ada = make_user("ada")
    myself = client.get(ME, headers=manager).json()["id"]

    assert grant(client, manager, ada, "users:write") == (200, ["users:write"])
    assert grant(client, manager, ada, "users:read")[0] == 403
    assert grant(client, manager, myself, *PERMISSIONS)[0] == 403


@pytest.mark.parametrize(
    "change", [{"is_active": False}, {"password": PASSWORD}, {"email": "a@b.de"}]
)
def test_z5_nobody_touches_an_account_with_more_permissions(
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


def test_z5_nobody_renames_or_deletes_a_permission_that_they_lack(
    client: TestClient, manager: dict[str, str], admin: dict[str, str]
) -> None:
    """Or they could make one of the same name anew: whoever makes a permission holds it."""
    made = client.post("/api/v1/permissions", json={"name": "invoices:pay"}, headers=admin)
    place = made.headers["location"]

    renamed = client.patch(place, json={"name": "invoices:see"}, headers=manager)
    described = client.patch(place, json={"description": "See invoices"}, headers=manager)
    deleted = client.delete(place, headers=manager)

    assert [answer.status_code for answer in (renamed, described, deleted)] == [403] * 3
    assert client.delete(place, headers=admin).status_code == 204


def test_z5_a_permission_of_ones_own_puts_nobody_above_an_administrator(
    client: TestClient, make_user: MakeUser, log_in: LogIn, admin: dict[str, str]
) -> None:
    carl, eve = make_user("carl", "permissions:write"), make_user("eve")
    made = client.post("/api/v1/permissions", json={"name": "mine"}, headers=log_in("carl"))
    assert grant(client, log_in("carl"), eve, "mine")[0] == 200

    assert grant(client, admin, carl)[0] == 200
    assert client.patch(f"{USERS}/{eve}", json={"is_active": False}, headers=admin).is_success
    assert client.delete(made.headers["location"], headers=admin).status_code == 204
    assert client.delete(f"{USERS}/{carl}", headers=admin).status_code == 204


def test_z5_nobody_takes_a_permission_from_an_account_above_them_by_deleting_it(
    client: TestClient, make_user: MakeUser, log_in: LogIn, admin: dict[str, str]
) -> None:
    made = client.post("/api/v1/permissions", json={"name": "payroll"}, headers=admin)
    make_user("dora", "permissions:write", "payroll")

    renamed = client.patch(
        made.headers["location"], json={"name": "rollpay"}, headers=log_in("dora")
    )
    deleted = client.delete(made.headers["location"], headers=log_in("dora"))

    assert (renamed.status_code, deleted.status_code) == (403, 403)
    assert "payroll" in client.get(ME, headers=admin).text


def test_z5_what_is_said_of_a_password_tells_nothing_of_an_account_above(
    client: TestClient, manager: dict[str, str], admin: dict[str, str]
) -> None:
    above = client.get(ME, headers=admin).json()["id"]

    for password in ("admin seven wet otters", "nine dry owls on a roof"):
        change = {"password": password}
        assert client.patch(f"{USERS}/{above}", json=change, headers=manager).status_code == 403


def test_a9_asking_by_a_new_name_which_accounts_there_are_gets_slow(
    client: TestClient, make_user: MakeUser, visitor: dict[str, str]
) -> None:
    make_user("ada")

    answers = [
        client.patch(ME, json={"username": name}, headers=visitor).status_code
        for name in ("ada", "first", "ada", "second", "ada", "third")
    ]

    assert answers == [409, 200, 409, 200, 409, 429]


def test_a9_nobody_is_kept_from_a_new_name_for_longer_than_a_day(
    client: TestClient, visitor: dict[str, str], rows: Engine
) -> None:
    assert client.patch(ME, json={"username": "first"}, headers=visitor).status_code == 200
    execute(rows, "UPDATE throttles SET attempts = 1000")
    assert client.patch(ME, json={"username": "second"}, headers=visitor).status_code == 429

    move_clock(rows, "throttles", "since", -25 * 3600)

    assert client.patch(ME, json={"username": "second"}, headers=visitor).status_code == 200


def test_z5_nobody_gets_around_the_current_password_of_their_own(
    client: TestClient, admin: dict[str, str]
) -> None:
    myself = client.get(ME, headers=admin).json()["id"]
    change = {"password": "nine dry owls on a roof"}

    answer = client.patch(f"{USERS}/{myself}", json=change, headers=admin)

    assert answer.status_code == 403
    assert "/auth/password" in answer.json()["detail"]


def test_z6_an_unknown_permission_changes_nothing_at_all(
    client: TestClient, admin: dict[str, str], make_user: MakeUser
) -> None:
    ada = make_user("ada", "users:read")

    answer = client.put(
        f"{USERS}/{ada}/permissions",
        json={"permissions": ["users:write", "no:such", "permissions:read"]},
        headers=admin,
    )

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["body", "permissions", "1"]
    held = client.get(f"{USERS}/{ada}", headers=admin).json()["permissions"]
    assert [permission["name"] for permission in held] == ["users:read"]


def test_z7_a_permission_that_was_taken_is_gone_with_the_next_request(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, log_in: LogIn
) -> None:
    number = make_user("ada", "users:read")
    ada = log_in("ada")
    assert client.get(USERS, headers=ada).status_code == 200

    grant(client, admin, number)

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


def test_z8_an_inactive_administrator_does_not_count(
    client: TestClient, admin: dict[str, str], make_user: MakeUser
) -> None:
    make_user("gone", *PERMISSIONS, is_active=False)
    me = client.get(ME, headers=admin).json()["id"]

    assert client.delete(f"{USERS}/{me}", headers=admin).status_code == 409


def test_two_who_take_each_others_name_at_once_are_both_answered(
    make_settings: MakeSettings, make_user: MakeUser
) -> None:
    workers = [TestClient(create_app(make_settings())) for _ in range(2)]
    with workers[0], workers[1], ThreadPoolExecutor(2) as people:
        assert {worker.get(ME).status_code for worker in workers} == {401}
        statuses: Counter[int] = Counter()
        for n in range(4):
            names = [f"ada-{n}", f"bob-{n}"]
            for name in names:
                make_user(name)
            headers = [header_of(worker, name) for worker, name in zip(workers, names, strict=True)]

            def rename(
                who: int, headers: list[dict[str, str]] = headers, names: list[str] = names
            ) -> int:
                other = names[1 - who]
                data = {"username": other, "email": f"{other}@example.com"}
                return workers[who].patch(ME, json=data, headers=headers[who]).status_code

            statuses.update(people.map(rename, [0, 1] * 3))

    assert statuses.keys() <= {409, 429}, statuses


@pytest.mark.parametrize("how", ["demote", "deactivate", "delete"])
def test_z8_two_administrators_cannot_remove_each_other(
    make_settings: MakeSettings, make_user: MakeUser, rows: Engine, how: str
) -> None:
    """Each in a worker of its own, both at once, ten times."""
    everything = tuple(PERMISSIONS)
    workers = [TestClient(create_app(make_settings())) for _ in range(2)]
    with workers[0], workers[1]:
        # FastAPI builds routes with the first request, and not in two threads at once.
        assert {worker.get(ME).status_code for worker in workers} == {401}
        for _ in range(10):
            for table in ("sessions", "user_permissions", "users"):
                execute(rows, f"DELETE FROM {table}")
            ids = [make_user(name, *everything) for name in ("ada", "bob")]
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

            with ThreadPoolExecutor(2) as both:
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


def header_of(client: TestClient, username: str) -> dict[str, str]:
    form = {"username": username, "password": PASSWORD}
    token = client.post(LOGIN, data=form).json()["access_token"]
    return {"Authorization": f"Bearer {token}"}


def test_z9_no_answer_holds_a_hash_or_a_password(
    app: FastAPI, client: TestClient, admin: dict[str, str]
) -> None:
    for method, path, _ in operations(app):
        if method == "GET":
            text = client.get(filled(path), headers=admin).text
            assert "argon2" not in text
            assert '"password"' not in text
            assert "token_hash" not in text


def test_i2_i7_the_list_has_pages_and_a_search_whose_wildcards_are_letters(
    client: TestClient, admin: dict[str, str], make_user: MakeUser
) -> None:
    for name in ("a_b", "axb", "bob"):
        make_user(name, "users:read")

    def names(**params: str | int) -> list[str]:
        answer = client.get(USERS, params=params, headers=admin)
        assert answer.status_code == 200
        return [user["username"] for user in answer.json()["items"]]

    assert names() == ["admin", "a_b", "axb", "bob"]
    assert names(q="_") == ["a_b"]
    assert names(q="%") == []
    assert names(q="\\") == []
    assert names(q="BOB@exam") == ["bob"]
    first = client.get(USERS, params={"limit": 3}, headers=admin).json()
    assert len(first["items"]) == 3
    assert names(limit=3, cursor=first["next"]) == ["bob"]
    assert first["items"][1]["permissions"][0]["name"] == "users:read"


TAKEN = ["ada", "ADA", " ada ", "ａｄａ", "\u1d2c\u1d30\u1d2c"]


@pytest.mark.parametrize("username", TAKEN)
def test_i8_a_name_is_taken_in_every_spelling(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, username: str
) -> None:
    make_user("ada")
    data = {**ADA, "username": username, "email": "other@example.com"}

    answer = client.post(USERS, json=data, headers=admin)

    assert answer.status_code == 409
    assert answer.json()["detail"] == "This username or e-mail address is taken."


@pytest.mark.parametrize("username", ["İpek", "ıpek", "straße", "a\u0308da", "аda", "a da", "ad"])
def test_i8_a_name_of_other_letters_is_refused_and_not_mistaken(
    client: TestClient, admin: dict[str, str], username: str
) -> None:
    answer = client.post(USERS, json={**ADA, "username": username}, headers=admin)

    # What folds to plain letters is taken as those; what does not is refused.
    assert answer.status_code == (201 if username == "straße" else 422)


@pytest.mark.parametrize(
    "email", ["ADA@EXAMPLE.COM", "ada@EXAMPLE.com", "ａda@example.com", " ada@example.com"]
)
def test_i8_an_address_is_taken_in_every_spelling(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, email: str
) -> None:
    make_user("ada")
    data = {**ADA, "username": "other", "email": email}

    assert client.post(USERS, json=data, headers=admin).status_code == 409


def test_i8_the_domain_of_an_address_stays_the_domain_it_is(
    client: TestClient, admin: dict[str, str]
) -> None:
    """Folded for comparison, straße.de would be strasse.de: somebody else's."""
    for number, domain in enumerate(["straße.de", "strasse.de", "STRASSE.de"]):
        data = {**ADA, "username": f"ada-{number}", "email": f"ada@{domain}"}
        created = client.post(USERS, json=data, headers=admin)
        if number < 2:
            assert created.json()["email"] == f"ada@{domain}"
        else:
            assert created.status_code == 409


@pytest.mark.parametrize(
    "email", ["ada", "ada@", "@example.com", "ada@@example.com", "ada@localhost", "a b@example.com"]
)
def test_an_address_that_cannot_be_one_is_refused_unquoted(
    client: TestClient, admin: dict[str, str], email: str
) -> None:
    answer = client.post(USERS, json={**ADA, "email": email}, headers=admin)

    assert answer.status_code == 422
    assert email not in json.dumps(answer.json()["errors"])


def test_i9_of_twenty_equal_accounts_at_once_one_is_made(
    client: TestClient, admin: dict[str, str]
) -> None:
    def create(_: int) -> int:
        return client.post(USERS, json=ADA, headers=admin).status_code

    with ThreadPoolExecutor(20) as clients:
        assert Counter(clients.map(create, range(20))) == {201: 1, 409: 19}


def test_i12_looking_changes_nothing(
    app: FastAPI, client: TestClient, admin: dict[str, str], rows: Engine
) -> None:
    def everything() -> list[object]:
        tables = ("users", "permissions", "user_permissions", "sessions", "throttles")
        return [execute(rows, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]

    before = everything()
    for method, path, _ in operations(app):
        if method == "GET":
            client.get(filled(path), headers=admin)

    assert everything() == before


def test_an_account_is_made_and_shown(client: TestClient, admin: dict[str, str]) -> None:
    created = client.post(USERS, json=ADA, headers=admin)

    assert created.status_code == 201
    shown = client.get(created.headers["location"], headers=admin).json()
    assert shown == created.json()
    assert shown.keys() == {"id", "username", "email", "is_active", "permissions"}
    absent = client.get(f"{USERS}/999999", headers=admin)
    assert absent.status_code == 404
    assert client.delete(created.headers["location"], headers=admin).status_code == 204
    assert client.get(created.headers["location"], headers=admin).status_code == 404


def test_a_change_leaves_alone_what_it_does_not_name(
    client: TestClient, visitor: dict[str, str]
) -> None:
    changed = client.patch(ME, json={"email": "New@Example.com", "username": None}, headers=visitor)

    assert changed.json()["email"] == "new@example.com"
    assert changed.json()["username"] == "visitor"


@pytest.mark.parametrize(
    ("meanwhile", "refusal"),
    [
        ("DELETE FROM sessions", Unauthenticated),
        ("UPDATE users SET is_active = false", Unauthenticated),
        ("DELETE FROM sessions; DELETE FROM user_permissions; DELETE FROM users", Unauthenticated),
        ("DELETE FROM user_permissions", PermissionDenied),
    ],
)
def test_t4_z7_what_ended_while_a_write_waited_for_its_turn_is_not_done(
    make_settings: MakeSettings,
    make_user: MakeUser,
    log_in: LogIn,
    rows: Engine,
    meanwhile: str,
    refusal: type[AppError],
) -> None:
    """Whoever was let in a moment ago is looked at again, in the transaction of the change."""
    number = make_user("ada", *PERMISSIONS)
    token = log_in("ada")["Authorization"].removeprefix("Bearer ")
    settings, client = make_settings(), Client("testclient", "")

    async def attempt() -> list[type[AppError] | None]:
        async with Database(settings) as database:
            async with database.readers() as session:
                actor = await identify(session, settings, token)
            assert actor
            for statement in meanwhile.split(";"):
                execute(rows, statement)
            changes: list[Callable[[AsyncSession], Awaitable[object]]] = [
                lambda session: users.create_user(session, settings, actor, UserCreate(**BOB)),
                lambda session: permissions.create_permission(
                    session, actor, PermissionCreate(name="test:made")
                ),
                lambda session: rights.replace_permissions(session, actor, number, []),
                lambda session: users.update_account(
                    database, session, actor, AccountUpdate(username="adam"), client
                ),
                lambda session: sessions.revoke_others(session, actor),
                lambda session: sessions.revoke_own(session, actor, actor.session_id),
            ]
            return [await refused(database, change) for change in changes]

    refusals = asyncio.run(attempt())

    assert refusals[:3] == [refusal] * 3
    # One's own account needs no permission, but a session.
    assert refusals[3:] == [Unauthenticated if refusal is Unauthenticated else None] * 3
    assert execute(rows, "SELECT count(*) FROM users WHERE username = 'bob'") == [(0,)]


async def refused(
    database: Database, change: Callable[[AsyncSession], Awaitable[object]]
) -> type[AppError] | None:
    try:
        async with database.writers.begin() as session:
            await change(session)
    except AppError as refusal:
        return type(refusal)
    return None


def test_a_permission_of_ones_own_can_be_made_granted_renamed_and_deleted(
    client: TestClient, admin: dict[str, str], make_user: MakeUser
) -> None:
    ada = make_user("ada")
    data = {"name": "test:made", "description": "See books"}

    made = client.post("/api/v1/permissions", json=data, headers=admin)
    assert made.status_code == 201
    assert client.post("/api/v1/permissions", json=data, headers=admin).status_code == 409
    assert grant(client, admin, ada, "test:made") == (200, ["test:made"])
    place = made.headers["location"]
    renamed = client.patch(place, json={"name": "test:renamed"}, headers=admin)
    assert renamed.json() == {**made.json(), "name": "test:renamed"}
    assert client.delete(place, headers=admin).status_code == 204
    assert client.patch(place, json={}, headers=admin).status_code == 404
    listed = client.get("/api/v1/permissions", headers=admin).json()["items"]
    assert {item["name"] for item in listed} == set(PERMISSIONS)


def test_a_permission_of_the_code_can_be_described_but_not_lost_or_claimed(
    client: TestClient, admin: dict[str, str], rows: Engine
) -> None:
    made = client.post("/api/v1/permissions", json={"name": "x"}, headers=admin)
    listed = client.get("/api/v1/permissions", headers=admin).json()["items"]
    place = f"/api/v1/permissions/{listed[0]['id']}"

    assert client.patch(place, json={"description": "New"}, headers=admin).status_code == 200
    assert client.patch(place, json={"name": "other"}, headers=admin).status_code == 409
    assert client.delete(place, headers=admin).status_code == 409
    # Also while its row is missing: whoever makes a permission holds it.
    execute(rows, "DELETE FROM permissions WHERE name = 'users:read'")
    claim = {"name": "users:read"}
    assert client.post("/api/v1/permissions", json=claim, headers=admin).status_code == 409
    rename = client.patch(made.headers["location"], json=claim, headers=admin)
    assert rename.status_code == 409


def test_x4_what_matters_to_security_is_logged_with_who_did_it(
    client: TestClient,
    admin: dict[str, str],
    visitor: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    events: list[tuple[object, int | None]] = []

    def note(record: logging.LogRecord) -> bool:
        events.append((getattr(record, "event", None), logs.user_id.get()))
        return True

    caplog.handler.addFilter(note)
    ada = client.post(USERS, json=ADA, headers=admin).headers["location"]
    client.patch(ada, json={"username": "eve"}, headers=admin)
    client.put(f"{ada}/permissions", json={"permissions": ["users:read"]}, headers=admin)
    client.delete(f"{ada}/sessions", headers=admin)
    client.delete(ada, headers=visitor)
    client.delete(ada, headers=admin)
    made = client.post("/api/v1/permissions", json={"name": "x"}, headers=admin)
    client.patch(made.headers["location"], json={"name": "y"}, headers=admin)
    client.delete(made.headers["location"], headers=admin)
    client.delete("/api/v1/auth/sessions", headers=visitor)
    client.post("/api/v1/auth/logout", headers=visitor)

    assert [event for event in events if event[0]] == [
        ("user_created", 1),
        ("user_changed", 1),
        ("grant", 1),
        ("sessions_revoked", 1),
        ("denied", 2),
        ("user_deleted", 1),
        ("permission_created", 1),
        ("permission_changed", 1),
        ("permission_deleted", 1),
        ("sessions_revoked", 2),
        ("logout", 2),
    ]
    (granted,) = [vars(record) for record in caplog.records if vars(record).get("event") == "grant"]
    assert (granted["subject"], granted["granted"], granted["revoked"]) == (3, ["users:read"], [])


def test_openapi_says_which_permission_each_operation_needs(app: FastAPI) -> None:
    found = {(method, path): needed(operation) for method, path, operation in operations(app)}

    assert found["GET", "/api/v1/users"] == ["users:read"]
    assert found["PUT", "/api/v1/users/{user_id}/permissions"] == ["permissions:write"]
    assert found["GET", "/api/v1/users/me"] == []
    assert {name for names in found.values() for name in names} <= set(PERMISSIONS)
