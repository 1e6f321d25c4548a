"""Permissions, and who can grant them."""

import pytest
from fastapi.testclient import TestClient

from app.api.deps import require
from app.permissions import PermissionName
from tests.auth.conftest import ME, USERS, Headers, LogIn, MakeUser

EVERYTHING = [*PermissionName]


def grant(client: TestClient, headers: Headers, user_id: int, *names: str) -> int:
    """Replace the permissions of a user; returns the status."""
    path = f"{USERS}/{user_id}/permissions"
    return client.put(path, json={"permissions": names}, headers=headers).status_code


@pytest.fixture
def manager(make_user: MakeUser, log_in: LogIn) -> Headers:
    """The headers of a user who can change users and grant permissions, but not every one."""
    make_user("manager", "users:write", "permissions:write")
    return log_in("manager")


def test_permissions_are_listed(client: TestClient, admin: Headers) -> None:
    response = client.get("/api/v1/permissions", params={"limit": 100}, headers=admin)

    listed = {item["name"]: item["description"] for item in response.json()["items"]}
    assert listed.items() <= {name.value: name.description for name in PermissionName}.items()
    assert "users:read" in listed


def test_permission_works_from_the_next_request_on(
    client: TestClient, admin: Headers, make_user: MakeUser, log_in: LogIn
) -> None:
    user_id, ada = make_user("ada"), log_in("ada")
    assert client.get(USERS, headers=ada).status_code == 403

    assert grant(client, admin, user_id, "users:read") == 200
    assert client.get(USERS, headers=ada).status_code == 200

    assert grant(client, admin, user_id) == 200
    assert client.get(USERS, headers=ada).status_code == 403


def test_unknown_permission_changes_nothing(
    client: TestClient, admin: Headers, make_user: MakeUser
) -> None:
    user_id = make_user("ada", "users:read")

    assert grant(client, admin, user_id, "users:write", "no:such") == 422

    (held,) = client.get(f"{USERS}/{user_id}", headers=admin).json()["permissions"]
    assert held["name"] == "users:read"


def test_users_cannot_grant_what_they_lack(
    client: TestClient, manager: Headers, make_user: MakeUser
) -> None:
    user_id = make_user("ada")
    own_id = client.get(ME, headers=manager).json()["id"]

    assert grant(client, manager, user_id, "users:write") == 200
    assert grant(client, manager, user_id, "users:read") == 403
    assert grant(client, manager, own_id, *EVERYTHING) == 403


def test_users_cannot_change_users_above_them(
    client: TestClient, manager: Headers, admin: Headers
) -> None:
    """Otherwise they could set the password of an administrator, and log in as one."""
    above = client.get(ME, headers=admin).json()
    path = f"{USERS}/{above['id']}"

    statuses = [
        client.patch(path, json={"is_active": False}, headers=manager).status_code,
        client.delete(path, headers=manager).status_code,
        client.delete(f"{path}/sessions", headers=manager).status_code,
        grant(client, manager, above["id"]),
    ]

    assert statuses == [403] * 4
    assert client.get(ME, headers=admin).json() == above


def test_the_last_administrator_stays(
    client: TestClient, admin: Headers, make_user: MakeUser
) -> None:
    """Otherwise, no one could grant permissions. Inactive administrators do not count."""
    make_user("inactive", *EVERYTHING, is_active=False)
    own_id = client.get(ME, headers=admin).json()["id"]

    statuses = [
        grant(client, admin, own_id, "users:read"),
        client.patch(f"{USERS}/{own_id}", json={"is_active": False}, headers=admin).status_code,
        client.delete(f"{USERS}/{own_id}", headers=admin).status_code,
    ]

    assert statuses == [409] * 3


def test_only_declared_permissions_can_be_required() -> None:
    with pytest.raises(ValueError, match="did you mean users:read"):
        require("users:reed")
