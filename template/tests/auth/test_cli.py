"""Users and permissions on the command line."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from typer.testing import CliRunner

from app.cli import cli
from tests.auth.conftest import (
    LOGIN,
    ME,
    NEW_PASSWORD,
    PASSWORD,
    USERS,
    Headers,
    LogIn,
    MakeUser,
    execute,
)

RunCommand = Callable[..., tuple[int, str]]


@pytest.fixture
def run_command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    """`run_command("user", "list")`: returns the exit code and the output."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    def run_command(*arguments: str, password: str = PASSWORD) -> tuple[int, str]:
        result = CliRunner().invoke(cli, arguments, input=f"{password}\n")
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert password not in result.output
        return result.exit_code, result.output

    return run_command


def test_first_administrator_is_created(
    run_command: RunCommand, client: TestClient, log_in: LogIn
) -> None:
    code, output = run_command("user", "create-admin", "ada", "ada@example.com")

    assert code == 0, output
    assert client.get(USERS, headers=log_in("ada")).status_code == 200
    assert "ada@example.com\tactive" in run_command("user", "list")[1]


@pytest.mark.parametrize(
    ("username", "email", "password", "reason"),
    [
        ("a", "ada@example.com", PASSWORD, "username: "),
        ("ada", "ada", PASSWORD, "email: "),
        ("ada", "ada@example.com", "passwordpassword", "too easy to guess"),
        ("bob", "ada@example.com", PASSWORD, "already taken"),
    ],
)
def test_invalid_user_is_rejected(
    run_command: RunCommand,
    make_user: MakeUser,
    rows: Engine,
    username: str,
    email: str,
    password: str,
    reason: str,
) -> None:
    make_user("bob")

    code, output = run_command("user", "create", username, email, password=password)

    assert code == 1
    assert reason in output
    assert execute(rows, "SELECT count(*) FROM users") == [(1,)]


def test_new_password_ends_sessions(
    run_command: RunCommand, client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    ada = log_in("ada")

    code, output = run_command("user", "set-password", "ada", password=NEW_PASSWORD)

    assert code == 0, output
    assert client.get(ME, headers=ada).status_code == 401
    login = client.post(LOGIN, data={"username": "ada", "password": NEW_PASSWORD})
    assert login.status_code == 200


@pytest.mark.parametrize("command", ["deactivate", "delete"])
def test_access_ends(
    run_command: RunCommand,
    client: TestClient,
    make_user: MakeUser,
    log_in: LogIn,
    admin: Headers,
    command: str,
) -> None:
    make_user("ada")
    ada = log_in("ada")

    code, output = run_command("user", command, "ada")

    assert code == 0, output
    assert client.get(ME, headers=ada).status_code == 401
    # The last administrator stays.
    assert run_command("user", command, "admin")[0] == 1
    assert client.get(ME, headers=admin).status_code == 200


def test_permissions_are_granted_and_revoked(
    run_command: RunCommand, make_user: MakeUser, admin: Headers
) -> None:
    make_user("ada")

    assert run_command("permission", "grant", "ada", "users:read", "users:write")[0] == 0
    code, output = run_command("permission", "revoke", "ada", "users:write")
    assert (code, output) == (0, "ada holds users:read.\n")
    # The last administrator stays.
    assert run_command("permission", "revoke", "admin", "permissions:write")[0] == 1


@pytest.mark.parametrize(("username", "name"), [("unknown", "users:read"), ("ada", "no:such")])
def test_unknown_users_and_permissions_are_rejected(
    run_command: RunCommand, make_user: MakeUser, username: str, name: str
) -> None:
    make_user("ada")

    code, output = run_command("permission", "grant", username, name)

    assert code == 1
    assert "Error: " in output
