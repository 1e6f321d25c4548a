"""What every command of a project does."""

import sys
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
import typer
from typer import Typer
from typer.testing import CliRunner

from app.core.commands import create_cli, progress_bars, prompt_secret, run
from app.core.database import Database, synchronous_url
from app.settings import load_settings


async def _read_books() -> None:
    async with Database(load_settings()) as database, database.readers() as session:
        await session.execute(sa.text("SELECT title FROM books"))


@pytest.fixture
def cli(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Typer:
    """The command line of a project with a command for a table that is missing."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    cli = create_cli("", load_settings, app="app.main:app", metadata="app.models:metadata")
    cli.command("list-books")(lambda: run(_read_books()))
    return cli


def test_a_command_that_fails_in_an_old_database_names_the_command_that_migrates_it(
    cli: Typer, database_url: str
) -> None:
    engine = sa.create_engine(synchronous_url(database_url))
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE alembic_version"))
    engine.dispose()

    result = CliRunner().invoke(cli, ["list-books"])

    assert result.exit_code == 1
    assert result.output.startswith("Error: migrations: database at no revision, code at ")
    assert result.output.count("\n") == 1


def test_an_error_in_a_migrated_database_stays_as_it_is(cli: Typer) -> None:
    result = CliRunner().invoke(cli, ["list-books"])

    assert isinstance(result.exception, sa.exc.DBAPIError)


def test_a_command_without_a_database_names_the_command_that_creates_it(
    cli: Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite+aiosqlite:///./missing.db")

    result = CliRunner().invoke(cli, ["list-books"])

    assert result.exit_code == 1
    assert "`alembic upgrade head` creates one" in result.output


def test_a_server_that_does_not_answer_is_not_to_be_migrated(
    cli: Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada@127.0.0.1:1/books")

    result = CliRunner().invoke(cli, ["list-books"])

    assert result.exit_code == 1
    assert result.output.startswith("Error: Cannot open the database: connection")
    assert "refused" in result.output
    assert "alembic" not in result.output


def test_the_progress_of_an_empty_table_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as show:
        show("books", 0, 0)
        show("users", 1, 2)

    books, users = capsys.readouterr().out.splitlines()
    assert "100%" in books
    assert " 50%" in users


def test_serve_names_a_negative_port(cli: Typer) -> None:
    result = CliRunner().invoke(cli, ["serve", "--port", "-5"])

    assert "'--port'" in result.output
    assert "unknown host" not in result.output


def test_a_terminal_shows_the_rule_before_it_asks_for_a_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prompt(name: str, **_: bool) -> str:
        typer.echo(f"{name}: ")
        return "secret"

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(typer, "prompt", prompt)

    assert prompt_secret("Password", "At least 15.") == "secret"
    assert capsys.readouterr().out == "At least 15.\nPassword: \n"
