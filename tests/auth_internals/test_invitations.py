"""Users who choose their own password, through an invitation by email."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError
from sqlalchemy import Engine

from app.auth.passwords import DUMMY_HASH
from tests.auth_internals.conftest import REAL_DUMMY_HASH
from tests.auth_internals.helpers import (
    ADA,
    LOGIN,
    ME,
    NEW_PASSWORD,
    PASSWORD,
    USERS,
    MakeUser,
    execute,
    header_of,
    mails,
    move_clock,
    token_in,
)
from tests.conftest import MakeSettings

FORGOT = "/api/v1/auth/password/forgot"
RESET = "/api/v1/auth/password/reset"
INVITED = {"username": "ada", "email": "ada@example.com"}


@pytest.fixture(params=["invite", "open"])
def admin_who_invites(
    request: pytest.FixtureRequest,
    app: FastAPI,
    client: TestClient,
    make_settings: MakeSettings,
    admin: dict[str, str],
) -> dict[str, str]:
    app.state.settings = make_settings(registration=request.param)
    return admin


def accept(client: TestClient, token: str, password: str = NEW_PASSWORD) -> int:
    body = {"token": token, "new_password": password}
    return client.post(RESET, json=body).status_code


def test_an_invited_user_chooses_the_password(
    client: TestClient, admin_who_invites: dict[str, str], rows: Engine
) -> None:
    created = client.post(USERS, json=INVITED, headers=admin_who_invites)
    assert created.status_code == 201
    assert created.headers["location"] == f"{USERS}/{created.json()['id']}"

    (mail,) = mails(rows)
    assert (mail.to, mail.template) == ("ada@example.com", "invitation")
    assert token_in(mail) not in created.text
    assert [accept(client, token_in(mail)) for _ in range(2)] == [204, 400]

    assert (
        client.get(ME, headers=header_of(client, "ada", NEW_PASSWORD)).json()["username"] == "ada"
    )


@pytest.mark.usefixtures("real_hashing")
@pytest.mark.parametrize("password", ["", DUMMY_HASH, "\x00" * 16, PASSWORD])
def test_a1_a_user_without_a_password_cannot_log_in(
    app: FastAPI,
    client: TestClient,
    make_settings: MakeSettings,
    make_user: MakeUser,
    rows: Engine,
    password: str,
) -> None:
    make_user("ada")
    execute(rows, "UPDATE users SET password = :hash", hash=REAL_DUMMY_HASH)

    response = client.post(LOGIN, data={"username": "ada", "password": password})

    assert response.status_code in {401, 422}
    assert response.json()["detail"] != "Something went wrong on our side."


def test_a1_no_administrator_knows_the_password_of_an_invited_user(
    client: TestClient, admin_who_invites: dict[str, str], make_user: MakeUser, rows: Engine
) -> None:
    other = make_user("bob")
    before = execute(rows, "SELECT id, password FROM users ORDER BY id")

    responses = [
        client.post(USERS, json=ADA, headers=admin_who_invites),
        client.patch(f"{USERS}/{other}", json={"password": PASSWORD}, headers=admin_who_invites),
    ]

    for response in responses:
        assert response.status_code == 422
        (error,) = response.json()["errors"]
        assert error["loc"] == ["body", "password"]
        assert error["msg"].startswith("Leave out the password")
    assert execute(rows, "SELECT id, password FROM users ORDER BY id") == before
    assert mails(rows) == []


def test_while_registration_is_closed_a_user_needs_a_password(
    client: TestClient, admin: dict[str, str], rows: Engine
) -> None:
    response = client.post(USERS, json=INVITED, headers=admin)

    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"loc": ["body", "password"], "msg": "Field required", "type": "missing"}
    ]
    assert client.post(USERS, json=ADA, headers=admin).status_code == 201
    assert mails(rows) == []


def test_t9_an_invitation_ends_after_three_days_and_a_new_link_takes_its_place(
    client: TestClient, admin_who_invites: dict[str, str], rows: Engine
) -> None:
    client.post(USERS, json=INVITED, headers=admin_who_invites)
    token = token_in(mails(rows)[0])
    move_clock(rows, "one_time_tokens", "expires_at", -3 * 24 * 60 * 60)

    assert accept(client, token) == 400
    assert client.post(FORGOT, json={"email": "ada@example.com"}).status_code == 204
    assert accept(client, token_in(mails(rows)[-1])) == 204


def test_t9_a_password_that_is_chosen_ends_the_invitation(
    client: TestClient, admin_who_invites: dict[str, str], rows: Engine
) -> None:
    client.post(USERS, json=INVITED, headers=admin_who_invites)
    invitation = token_in(mails(rows)[0])
    client.post(FORGOT, json={"email": "ada@example.com"})

    assert accept(client, token_in(mails(rows)[-1])) == 204

    assert accept(client, invitation) == 400


@pytest.mark.parametrize(
    "change", [{"email": "new@example.com"}, {"is_active": False}, None], ids=str
)
def test_t9_an_invitation_ends_with_what_it_was_for(
    client: TestClient,
    admin_who_invites: dict[str, str],
    rows: Engine,
    change: dict[str, object] | None,
) -> None:
    created = client.post(USERS, json=INVITED, headers=admin_who_invites)
    path = created.headers["location"]
    if change is None:
        client.delete(path, headers=admin_who_invites)
    else:
        client.patch(path, json=change, headers=admin_who_invites)

    assert accept(client, token_in(mails(rows)[0])) == 400


def test_t9_of_several_acceptances_at_once_one_succeeds(
    client: TestClient, admin_who_invites: dict[str, str], rows: Engine
) -> None:
    client.post(USERS, json=INVITED, headers=admin_who_invites)
    token = token_in(mails(rows)[0])

    with ThreadPoolExecutor(10) as people:
        chosen = [f"{NEW_PASSWORD} {n}" for n in range(20)]
        statuses = Counter(people.map(lambda password: accept(client, token, password), chosen))

    assert statuses[204] == 1
    assert {*statuses} <= {204, 400, 429}


def test_t15_invitations_of_one_address_are_limited(
    client: TestClient, admin_who_invites: dict[str, str], rows: Engine
) -> None:
    """An administrator could delete and invite a user again and again."""
    statuses = []
    for n in range(6):
        body = {**INVITED, "email": f"ada+{n}@example.com"}
        created = client.post(USERS, json=body, headers=admin_who_invites)
        statuses.append(created.status_code)
        if created.is_success:
            client.delete(created.headers["location"], headers=admin_who_invites)

    assert statuses == [201] * 5 + [429]
    assert len(mails(rows)) == 5


def test_t15_invitations_by_one_administrator_are_limited(
    client: TestClient, admin_who_invites: dict[str, str], make_user: MakeUser
) -> None:
    people = [{"username": f"user-{n}", "email": f"user-{n}@example.com"} for n in range(31)]
    responses = [client.post(USERS, json=one, headers=admin_who_invites) for one in people]

    assert [response.status_code for response in responses] == [201] * 30 + [429]
    assert int(responses[-1].headers["Retry-After"]) <= 5 * 60
    # Those who log in from the same network are not affected.
    assert client.post(LOGIN, data={"username": "admin", "password": PASSWORD}).is_success
    # Nor are other administrators.
    make_user("other", "users:write")
    other = header_of(client, "other")
    assert client.post(USERS, json=people[-1], headers=other).status_code == 201


def test_a_rejected_user_gets_no_invitation(
    client: TestClient, admin_who_invites: dict[str, str], make_user: MakeUser, rows: Engine
) -> None:
    make_user("ada")

    assert client.post(USERS, json=INVITED, headers=admin_who_invites).status_code == 409

    assert mails(rows) == []
    assert execute(rows, "SELECT id FROM one_time_tokens") == []


@pytest.mark.parametrize("registration", ["invite", "open"])
@pytest.mark.parametrize("environment", ["production", None])
def test_g5_registration_by_email_needs_a_mail_server_and_an_address(
    make_settings: MakeSettings, registration: str, environment: str | None
) -> None:
    values = {"environment": environment, "registration": registration}
    mail = {"smtp_url": "smtps://example.com", "mail_from": "app@example.com"}

    with pytest.raises(ValidationError):
        make_settings(**values)
    with pytest.raises(ValidationError):
        make_settings(**values, **mail)
    make_settings(**values, **mail, public_url="https://example.com")
