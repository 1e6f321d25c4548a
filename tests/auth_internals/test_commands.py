"""Users and permissions on the command line."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from app.auth import users
from app.auth.cli import run_command
from app.cli import cli
from app.core.database import Database
from app.models.user import User
from tests.auth_internals.helpers import (
    LOGIN,
    ME,
    NEW_PASSWORD,
    PASSWORD,
    USERS,
    WRONG,
    LogIn,
    MakeUser,
    add_links,
    execute,
)
from tests.conftest import MakeSettings

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with a line of standard input; returns its exit code and output."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    def command(*arguments: str, password: str = PASSWORD) -> tuple[int, str]:
        result = CliRunner().invoke(cli, arguments, input=f"{password}\n")
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert PASSWORD not in result.output
        return result.exit_code, result.output

    return command


def test_a1_the_first_administrator_is_created_on_the_command_line(
    run: Run, client: TestClient, log_in: LogIn
) -> None:
    code, output = run("user", "create-admin", "ada", "ada@example.com")

    assert code == 0, output
    assert client.get(USERS, headers=log_in("ada")).status_code == 200
    listed = run("user", "list")[1].split()
    assert listed[1:4] == ["ada", "ada@example.com", "active"]


@pytest.mark.parametrize(
    ("arguments", "password", "reason"),
    [
        (["ada", "ada@example.com"], "short", "password: Use at least 15 characters"),
        (["ada", "ada@example.com"], "passwordpassword", "password: This password is too easy"),
        (["ada", "ada@example.com"], "here comes ada again", "Leave out your username"),
        (
            ["a", "ada@example.com"],
            PASSWORD,
            "username: Use 3 to 32 characters: a-z, 0-9, dot, _ and -.\n",
        ),
        (["ada", "nobody"], PASSWORD, "email: Enter an address such as ada@example.com.\n"),
        (["bob", "other@example.com"], PASSWORD, "taken"),
        (["ada", "a\u3164da@example.com"], PASSWORD, "email: "),
        (["ada", "a\udcff@example.com"], PASSWORD, "email: "),
        (["ada\udcff", "ada@example.com"], PASSWORD, "username: "),
        (["ada", "ada@example.com"], "seven wet otters\0 on a raft", "password: "),
    ],
)
def test_a7_the_command_line_rejects_what_the_api_rejects(
    run: Run,
    make_user: MakeUser,
    rows: Engine,
    arguments: list[str],
    password: str,
    reason: str,
) -> None:
    make_user("bob")

    code, output = run("user", "create", *arguments, password=password)

    assert code == 1
    assert reason in output
    assert execute(rows, "SELECT count(*) FROM users") == [(1,)]


def test_a_new_password_ends_all_sessions_and_resets_failed_logins(
    run: Run, client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    before = log_in("ada")
    for _ in range(6):
        client.post(LOGIN, data={"username": "ada", "password": WRONG})

    code, output = run("user", "set-password", "ADA", password=NEW_PASSWORD)

    assert code == 0, output
    assert client.get(ME, headers=before).status_code == 401
    log_in("ada", NEW_PASSWORD)


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("x" * 257, "password: String should have at most 256 characters"),
        ("", "password: Use at least 15 characters"),
        ("short", "password: Use at least 15 characters"),
        ("a short one", "password: Use at least 15 characters"),
    ],
)
def test_a6_a_password_that_is_too_long_or_too_short_is_not_set(
    run: Run, make_user: MakeUser, rows: Engine, password: str, reason: str
) -> None:
    make_user("ada")
    before = execute(rows, "SELECT password FROM users")

    code, output = run("user", "set-password", "ada", password=password)

    assert code == 1
    assert reason in output
    assert execute(rows, "SELECT password FROM users") == before


@pytest.mark.parametrize("name", ["nobody", "no body", "ad\udcffa", "ada@example.com", ""])
def test_i4_a_name_that_no_user_can_have_is_not_found(
    run: Run, make_user: MakeUser, name: str
) -> None:
    make_user("ada")

    for arguments in (
        ("user", "set-password", name),
        ("user", "deactivate", name),
        ("user", "activate", name),
        ("user", "delete", name),
        ("permission", "grant", name, "users:read"),
    ):
        code, output = run(*arguments)
        assert (code, "User not found." in output) == (1, True)


@pytest.mark.usefixtures("admin")
def test_a_user_is_deactivated_and_activated(
    run: Run, client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("bob")
    add_links(rows)
    before = log_in("bob")

    code, output = run("user", "deactivate", "BOB")

    assert (code, output) == (0, "Deactivated BOB and ended all sessions.\n")
    assert client.get(ME, headers=before).status_code == 401
    assert client.post(LOGIN, data={"username": "bob", "password": PASSWORD}).status_code == 401
    links = "SELECT count(*) FROM one_time_tokens WHERE user_id IS NOT NULL"
    assert execute(rows, links) == [(0,)]
    assert "bob@example.com\tinactive" in run("user", "list")[1]

    assert run("user", "activate", "bob") == (0, "Activated bob.\n")
    assert client.get(ME, headers=before).status_code == 401
    log_in("bob")


def test_a_user_is_deleted(
    run: Run, client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")
    before = log_in("ada")

    assert run("user", "delete", "ADA") == (0, "Deleted ADA.\n")

    assert client.get(ME, headers=before).status_code == 401
    assert execute(rows, "SELECT * FROM users") == execute(rows, "SELECT * FROM sessions") == []


def test_z8_an_inactive_administrator_can_be_deleted_where_none_is_active(
    run: Run, make_user: MakeUser
) -> None:
    make_user("ada", "permissions:write", "users:write", is_active=False)

    assert run("user", "delete", "ada") == (0, "Deleted ada.\n")


def test_a_user_to_whom_rows_refer_stays(run: Run, make_user: MakeUser, rows: Engine) -> None:
    make_user("ada")
    with rows.begin() as connection:
        for statement in (
            "CREATE TABLE books (id INTEGER PRIMARY KEY, owner_id BIGINT REFERENCES users (id))",
            "INSERT INTO books VALUES (1, 1)",
        ):
            connection.execute(text(statement))

    code, output = run("user", "delete", "ada")

    assert code == 1
    assert output.endswith("; other rows refer to it, or have the same value\n")
    assert execute(rows, "SELECT username FROM users") == [("ada",)]


@pytest.mark.parametrize("command", ["deactivate", "delete"])
def test_z8_the_last_administrator_is_neither_deactivated_nor_deleted(
    run: Run,
    client: TestClient,
    admin: dict[str, str],
    make_user: MakeUser,
    caplog: pytest.LogCaptureFixture,
    command: str,
) -> None:
    make_user("ada", "permissions:write", "users:write")
    assert run("user", "deactivate", "ada")[0] == 0
    caplog.clear()

    code, output = run("user", command, "admin")

    assert code == 1
    assert "sessions_revoked" not in {getattr(line, "event", "") for line in caplog.records}
    assert output == (
        "Error: This is the last active user who holds permissions:write and users:write.\n"
    )
    assert client.get(ME, headers=admin).json()["is_active"]
    # With another one, it is allowed.
    assert run("user", "activate", "ada")[0] == run("user", command, "admin")[0] == 0


def test_check_reports_a_permission_without_a_row(run: Run, rows: Engine) -> None:
    assert run("check")[0] == 0
    execute(rows, "DELETE FROM permissions WHERE name = 'users:read'")

    code, output = run("check")

    assert code == 1
    assert "error   missing row permissions: users:read: run `alembic upgrade head`" in output


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (
            "DELETE FROM permissions WHERE name = 'users:read'",
            "Error: missing row permissions: users:read: run `alembic upgrade head`\n",
        ),
        ("DELETE FROM alembic_version", "the database is behind; run `alembic upgrade head`\n"),
    ],
)
def test_a_command_that_fails_says_that_the_database_is_not_migrated(
    run: Run, rows: Engine, statement: str, reason: str
) -> None:
    execute(rows, statement)

    code, output = run("permission", "grant", "ada", "users:read", "no:such")

    assert code == 1
    assert output.endswith(reason)
    assert output.count("Error") == 1


def test_a_command_whose_user_was_just_deleted_fails_with_a_sentence(
    make_settings: MakeSettings, make_user: MakeUser, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on PostgreSQL, if a request deletes the user after the command has read it."""
    make_user("ada")

    async def work() -> None:
        async with Database(make_settings()) as database, database.writers.begin() as session:
            user = await users.load_user(session, User.username == "ada")
            await session.execute(text("DELETE FROM users"))
            user.username = "eve"

    with pytest.raises(typer.Exit):
        run_command("user set-password", work())

    assert capsys.readouterr().err.endswith(
        "Error: the row was just changed or deleted; try again\n"
    )


def test_x4_commands_log_what_they_change_and_who_runs_them(
    database_url: str, make_user: MakeUser
) -> None:
    """In a separate process: in this one, pytest has taken over the log."""
    make_user("bob")
    commands = [
        ["user", "create-admin", "ada", "ada@example.com"],
        ["user", "set-password", "ada"],
        ["permission", "grant", "bob", "users:read"],
        ["permission", "revoke", "bob", "users:read"],
        ["user", "deactivate", "bob"],
        ["user", "activate", "bob"],
        ["user", "delete", "bob"],
        ["user", "list"],
    ]
    code = f"from app.cli import cli\nfor c in {commands}: cli(c, standalone_mode=False)"
    environment = {"DATABASE_URL": database_url, "LOGNAME": "operator"}

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment, "ENVIRONMENT": "production", "ALLOWED_HOSTS": "x.org"},
        input=f"{PASSWORD}\n" * 2,
        capture_output=True,
        text=True,
        check=True,
    )

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    found = [(line["command"], line["event"]) for line in lines]
    assert found == [
        ("user create-admin", "user_created"),
        ("user create-admin", "grant"),
        ("user set-password", "sessions_revoked"),
        ("user set-password", "user_changed"),
        ("permission grant", "grant"),
        ("permission revoke", "grant"),
        ("user deactivate", "sessions_revoked"),
        ("user deactivate", "user_changed"),
        ("user activate", "user_changed"),
        ("user delete", "user_deleted"),
    ]
    assert {line["os_user"] for line in lines} == {"operator"}
    assert lines[3]["changed"] == ["password"]


@pytest.mark.usefixtures("admin")
def test_z8_permissions_are_granted_and_revoked_but_not_from_the_last_administrator(
    run: Run, make_user: MakeUser
) -> None:
    make_user("ada")

    assert run("permission", "grant", "ada", "users:read", "permissions:write")[0] == 0
    assert run("permission", "revoke", "ada", "permissions:write")[1] == "ada holds users:read.\n"
    for arguments, reason in [
        (("revoke", "admin", "permissions:write"), "This is the last active user who holds"),
        (("grant", "ada", "no:such"), "Error: permissions: Unknown permission: no:such."),
        (("grant", "nobody", "users:read"), "User not found."),
    ]:
        code, output = run("permission", *arguments)
        assert code == 1
        assert reason in output


def test_a_grant_that_changes_nothing_is_not_logged(
    run: Run, make_user: MakeUser, caplog: pytest.LogCaptureFixture
) -> None:
    make_user("ada", "users:read")
    caplog.set_level(logging.INFO)

    assert run("permission", "grant", "ada", "users:read")[0] == 0

    assert "grant" not in {getattr(line, "event", "") for line in caplog.records}
