"""Accounts on the command line, as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from tests.auth.conftest import PASSWORD, LogIn, MakeUser, execute

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def run(database_url: str) -> "Run":
    return Run(database_url)


class Run:
    """`python -m app ...` on this test's database, with a line of standard input."""

    def __init__(self, url: str) -> None:
        self.environment = {**os.environ, "DATABASE_URL": url}

    def __call__(self, *arguments: str, password: str = PASSWORD) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=PROJECT,
            env=self.environment,
            input=f"{password}\n",
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr


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
    assert "There is no such permission." in said
    code, said = run("permission", "grant", "nobody", "users:read")
    assert code == 1
    assert "There is no user nobody." in said
