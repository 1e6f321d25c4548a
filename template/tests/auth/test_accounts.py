"""Accounts on the command line."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from typer.testing import CliRunner

from app.cli import cli
from tests.auth.conftest import PASSWORD, LogIn, MakeUser, execute

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command on this test's database, with a line of standard input; its code and output."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    def command(*arguments: str, password: str = PASSWORD) -> tuple[int, str]:
        done = CliRunner().invoke(cli, arguments, input=f"{password}\n")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert PASSWORD not in done.output
        return done.exit_code, done.output

    return command


def test_a1_the_first_administrator_is_made_here(
    run: Run, client: TestClient, log_in: LogIn
) -> None:
    code, said = run("user", "create-admin", "ada", "ada@example.com")

    assert code == 0, said
    assert client.get("/api/v1/users", headers=log_in("ada")).status_code == 200
    listed = run("user", "list")[1].split()
    assert listed[1:4] == ["ada", "ada@example.com", "active"]


@pytest.mark.parametrize(
    ("arguments", "password", "sentence"),
    [
        (["ada", "ada@example.com"], "short", "password: String should have at least 8"),
        (["ada", "ada@example.com"], "passwordpassword", "among the first that would be tried"),
        (["ada", "ada@example.com"], "here comes ada again", "Leave out your username"),
        (["a", "ada@example.com"], PASSWORD, "username: "),
        (["ada", "nobody"], PASSWORD, "email: "),
        (["bob", "other@example.com"], PASSWORD, "taken"),
    ],
)
def test_a7_what_the_api_refuses_is_refused_here(
    run: Run,
    make_user: MakeUser,
    rows: Engine,
    arguments: list[str],
    password: str,
    sentence: str,
) -> None:
    make_user("bob")

    code, said = run("user", "create", *arguments, password=password)

    assert code == 1
    assert sentence in said
    assert execute(rows, "SELECT count(*) FROM users") == [(1,)]


def test_a_password_that_is_set_ends_sessions_and_the_throttle(
    run: Run, client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    before = log_in("ada")
    wrong = {"username": "ada", "password": "wrong password, this one"}
    for _ in range(6):
        client.post("/api/v1/auth/login", data=wrong)

    code, said = run("user", "set-password", "ADA", password="nine dry owls on a roof")

    assert code == 0, said
    assert client.get("/api/v1/users/me", headers=before).status_code == 401
    log_in("ada", "nine dry owls on a roof")


@pytest.mark.parametrize("password", ["x" * 257, "a short one"])
def test_a6_a_password_that_is_set_here_is_neither_too_long_nor_too_short(
    run: Run, make_user: MakeUser, rows: Engine, password: str
) -> None:
    make_user("ada")
    before = execute(rows, "SELECT password FROM users")

    code, said = run("user", "set-password", "ada", password=password)

    assert code == 1
    assert "Use at least 15 characters" in said or "password: String should have at most" in said
    assert execute(rows, "SELECT password FROM users") == before


def test_check_finds_a_permission_whose_row_is_missing(run: Run, rows: Engine) -> None:
    assert run("check")[0] == 0
    execute(rows, "DELETE FROM permissions WHERE name = 'users:read'")

    code, said = run("check")

    assert code == 1
    assert "mend  permissions: users:read is missing: run `alembic upgrade head`" in said


def test_permissions_are_granted_and_revoked_but_not_the_last_administrator(
    run: Run, make_user: MakeUser, admin: dict[str, str]
) -> None:
    make_user("ada")

    assert run("permission", "grant", "ada", "users:read", "permissions:write")[0] == 0
    assert run("permission", "revoke", "ada", "permissions:write")[1] == "ada holds users:read.\n"
    code, said = run("permission", "revoke", "admin", "permissions:write")
    assert code == 1
    assert "last active account" in said
    code, said = run("permission", "grant", "ada", "no:such")
    assert code == 1
    assert "permissions.0: There is no such permission." in said
    code, said = run("permission", "grant", "nobody", "users:read")
    assert code == 1
    assert "There is no user nobody." in said
