"""Users: what they see and change themselves, and what administrators do."""

import pytest
from fastapi.testclient import TestClient

from tests.auth.conftest import ADA, LOGIN, ME, NEW_PASSWORD, USERS, Headers, LogIn, MakeUser


def test_users_see_themselves(client: TestClient, visitor: Headers) -> None:
    me = client.get(ME, headers=visitor).json()

    assert me["username"] == "visitor"
    assert me["permissions"] == []
    assert "password" not in me


def test_users_change_only_what_they_name(client: TestClient, visitor: Headers) -> None:
    response = client.patch(ME, json={"email": "New@Example.com"}, headers=visitor)

    assert response.status_code == 200
    assert response.json()["email"] == "new@example.com"
    assert response.json()["username"] == "visitor"


@pytest.mark.parametrize("field", ["is_active", "permissions", "password", "id"])
def test_users_cannot_change_other_fields(client: TestClient, visitor: Headers, field: str) -> None:
    assert client.patch(ME, json={field: 1}, headers=visitor).status_code == 422


@pytest.mark.parametrize(
    "change", [{"username": "ADA"}, {"email": "Ada@Example.com"}], ids=["username", "email"]
)
def test_names_are_unique_in_every_spelling(
    client: TestClient, visitor: Headers, make_user: MakeUser, change: dict[str, str]
) -> None:
    make_user("ada")

    response = client.patch(ME, json=change, headers=visitor)

    assert response.status_code == 409
    assert response.json()["detail"] == "This username or email address is already taken."


def test_user_is_created_read_and_deleted(client: TestClient, admin: Headers) -> None:
    created = client.post(USERS, json=ADA, headers=admin)

    assert created.status_code == 201
    path = created.headers["Location"]
    assert client.get(path, headers=admin).json() == created.json()
    assert created.json()["username"] == "ada"
    assert created.json()["is_active"] is True
    assert created.json()["permissions"] == []
    assert client.post(USERS, json=ADA, headers=admin).status_code == 409
    assert client.delete(path, headers=admin).status_code == 204
    assert client.get(path, headers=admin).status_code == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", "a"),
        ("username", "ada lovelace"),
        ("email", "ada"),
        ("email", "ada@localhost"),
        ("password", "short"),
        ("is_admin", True),
    ],
)
def test_invalid_user_is_rejected(
    client: TestClient, admin: Headers, field: str, value: object
) -> None:
    response = client.post(USERS, json={**ADA, field: value}, headers=admin)

    assert response.status_code == 422
    assert response.json()["errors"]


def test_users_are_listed_in_pages(client: TestClient, admin: Headers, make_user: MakeUser) -> None:
    make_user("ada")
    make_user("bob")

    first = client.get(USERS, params={"limit": 2}, headers=admin).json()
    second = client.get(USERS, params={"limit": 2, "cursor": first["next"]}, headers=admin).json()

    assert [user["username"] for user in first["items"]] == ["admin", "ada"]
    assert [user["username"] for user in second["items"]] == ["bob"]
    assert second["next"] is None


@pytest.mark.parametrize(
    ("search", "found"), [("B@EXAM", ["a_b"]), ("a_", ["a_b"]), ("%", []), ("nobody", [])]
)
def test_users_are_found_by_a_part_of_their_names(
    client: TestClient, admin: Headers, make_user: MakeUser, search: str, found: list[str]
) -> None:
    make_user("a_b")
    make_user("axel")

    response = client.get(USERS, params={"q": search}, headers=admin)

    assert [user["username"] for user in response.json()["items"]] == found


@pytest.mark.parametrize(
    "change", [{"is_active": False}, {"password": NEW_PASSWORD}], ids=["deactivate", "password"]
)
def test_deactivation_and_a_new_password_log_the_user_out(
    client: TestClient,
    admin: Headers,
    make_user: MakeUser,
    log_in: LogIn,
    change: dict[str, object],
) -> None:
    path, ada = f"{USERS}/{make_user('ada')}", log_in("ada")

    assert client.patch(path, json=change, headers=admin).status_code == 200

    assert client.get(ME, headers=ada).status_code == 401
    login = client.post(LOGIN, data={"username": "ada", "password": NEW_PASSWORD})
    assert login.status_code == (200 if "password" in change else 401)


def test_an_administrator_logs_a_user_out(
    client: TestClient, admin: Headers, make_user: MakeUser, log_in: LogIn
) -> None:
    path, ada = f"{USERS}/{make_user('ada')}", log_in("ada")

    assert client.delete(f"{path}/sessions", headers=admin).status_code == 204

    assert client.get(ME, headers=ada).status_code == 401
    assert client.get(ME, headers=log_in("ada")).status_code == 200


def test_administrators_change_their_own_password_elsewhere(
    client: TestClient, admin: Headers
) -> None:
    me = client.get(ME, headers=admin).json()["id"]

    response = client.patch(f"{USERS}/{me}", json={"password": NEW_PASSWORD}, headers=admin)

    assert response.status_code == 403
    assert response.json()["detail"] == "Change your own password with your current one."
