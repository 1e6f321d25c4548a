"""What users are told by email about their own accounts."""

from collections import Counter

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import Engine
from typer.testing import CliRunner

from app.auth import passwords
from app.cli import cli
from app.permissions import PermissionName
from tests.auth_internals.helpers import (
    CHANGE_PASSWORD,
    LOGIN,
    ME,
    NEW_PASSWORD,
    PASSWORD,
    LogIn,
    MakeUser,
    execute,
    grant,
    mails,
    move_clock,
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


def test_a_network_stays_known_when_a_login_renews_the_hash(
    client: TestClient,
    make_user: MakeUser,
    log_in: LogIn,
    rows: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_user("ada")
    log_in("ada")
    stronger = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=8, parallelism=1),))
    monkeypatch.setattr(passwords, "HASHER", stronger)

    for _ in range(2):
        log_in("ada")

    assert len(mails(rows, about_logins=True)) == 1


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


def test_a_command_tells_users_what_the_api_tells_them(
    make_user: MakeUser, rows: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_user("ada")
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("ENVIRONMENT", "development")

    for arguments in (
        ["permission", "grant", "ada", "users:read"],
        ["permission", "grant", "ada", "users:read"],
        ["permission", "revoke", "ada", "users:read"],
        ["user", "set-password", "ada"],
    ):
        assert CliRunner().invoke(cli, arguments, input=f"{NEW_PASSWORD}\n").exit_code == 0

    # Nothing changed the second time.
    told = mails(rows)
    assert [mail.template for mail in told] == [*["permissions_changed"] * 2, "password_changed"]
    assert {mail.to for mail in told} == {"ada@example.com"}
    assert "users:read" in told[0].text
    assert "An administrator" in told[0].text


def from_network(client: TestClient, number: int) -> TestClient:
    """The same client in another network. An IPv6 customer has thousands."""
    other = TestClient(client.app, client=(f"2001:db8:0:{number:x}::1", 50000))
    # With a second event loop, it would sometimes find the database in use by the first.
    other.portal = client.portal
    return other


def test_t15_an_account_cannot_flood_its_address_with_notices(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    """Without a link, an address may be a stranger's."""
    make_user("ada")
    header, passwords = {}, (PASSWORD, NEW_PASSWORD)
    for number in range(24):
        attacker = from_network(client, number)
        form = {"username": "ada", "password": passwords[number % 2]}
        header = {
            "Authorization": f"Bearer {attacker.post(LOGIN, data=form).json()['access_token']}"
        }
        change = {"current_password": form["password"], "new_password": passwords[(number + 1) % 2]}
        assert attacker.post(CHANGE_PASSWORD, json=change, headers=header).status_code == 200

    counts = Counter(m.template for m in [*mails(rows), *mails(rows, about_logins=True)])
    assert counts == {"password_changed": 10, "new_login": 10}
    # A day later, and another mailbox at any time.
    move_clock(rows, "throttles", "since", -24 * 60 * 60 - 60)
    form = {"username": "ada", "password": PASSWORD}
    assert from_network(client, 99).post(LOGIN, data=form).status_code == 200
    assert len(mails(rows, about_logins=True)) == 11


def test_t15_nobody_silences_the_notices_of_another_user(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    """The address of the other user is one that some providers deliver to the same mailbox."""
    make_user("ada")
    make_user("bob")
    execute(rows, "UPDATE users SET email = 'a.da+x@example.com' WHERE username = 'bob'")
    form = {"username": "bob", "password": PASSWORD}
    for number in range(12):
        assert from_network(client, number).post(LOGIN, data=form).status_code == 200

    assert client.post(LOGIN, data={**form, "username": "ada"}).status_code == 200

    assert mails(rows, about_logins=True)[-1].to == "ada@example.com"


def test_t15_one_kind_of_notice_does_not_silence_another(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    """Otherwise a thief could hide a new password behind many logins."""
    make_user("ada")
    form = {"username": "ada", "password": PASSWORD}
    for number in range(12):
        response = from_network(client, number).post(LOGIN, data=form)
    header = {"Authorization": f"Bearer {response.json()['access_token']}"}

    client.patch(ME, json={"email": "new@example.com"}, headers=header)

    assert [mail.template for mail in mails(rows)] == ["notify_previous_email"]
