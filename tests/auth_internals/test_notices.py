"""What users are told by email about their own accounts."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from app.permissions import PermissionName
from tests.auth_internals.helpers import (
    CHANGE_PASSWORD,
    LOGIN,
    NEW_PASSWORD,
    PASSWORD,
    LogIn,
    MakeUser,
    execute,
    grant,
    mails,
)
from tests.conftest import MakeSettings


def test_users_are_told_of_a_login_from_a_new_network_once(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")
    for _ in range(3):
        log_in("ada")
    client.post(LOGIN, data={"username": "ada", "password": "wrong password, this one"})

    (mail,) = mails(rows, about_logins=True)
    assert mail.to == "ada@example.com"
    assert "testclient" in mail.text


def test_a_hostile_user_agent_is_one_line_of_the_mail(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    make_user("ada")
    form = {"username": "ada", "password": PASSWORD}
    client.post(LOGIN, data=form, headers={"User-Agent": "x" * 5000 + "\t<script>"})

    (mail,) = mails(rows, about_logins=True)
    assert "x" * 201 not in mail.text


def test_users_are_told_of_other_permissions(
    client: TestClient, make_user: MakeUser, admin: dict[str, str], rows: Engine
) -> None:
    user_id = make_user("ada")

    for _ in range(2):
        assert grant(client, admin, user_id, PermissionName.USERS_READ)[0] == 200
    assert grant(client, admin, user_id)[0] == 200
    assert grant(client, admin, user_id, "unknown:name")[0] == 422

    # Nothing changed the second time.
    told = mails(rows)
    assert [(mail.to, mail.template) for mail in told] == [
        ("ada@example.com", "permissions_changed")
    ] * 2
    assert "users:read" in told[0].text
    assert "admin" in told[0].text


def test_users_are_told_of_a_new_password(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}

    assert client.post(CHANGE_PASSWORD, json=change, headers=log_in("ada")).status_code == 200

    (mail,) = mails(rows)
    assert (mail.to, mail.template) == ("ada@example.com", "password_changed")
    assert NEW_PASSWORD not in str(execute(rows, "SELECT variables FROM outgoing_mails"))


@pytest.mark.parametrize("environment", ["production", None])
def test_without_a_mail_server_nothing_is_queued(
    app: FastAPI,
    client: TestClient,
    make_settings: MakeSettings,
    make_user: MakeUser,
    log_in: LogIn,
    rows: Engine,
    environment: str | None,
) -> None:
    make_user("ada")
    app.state.settings = make_settings(environment=environment)

    log_in("ada")

    assert execute(rows, "SELECT * FROM outgoing_mails") == []
