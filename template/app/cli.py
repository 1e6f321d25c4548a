"""Chores on the command line: `python -m app --help`."""

import asyncio
import json
import platform
import re
import sqlite3
import sys
from pathlib import Path

import typer
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

import app
from app.db.revision import migration_state
from app.db.session import Database
from app.settings import Settings, load_settings, unknown_names

cli = typer.Typer(no_args_is_help=True, add_completion=False, help=app.__doc__)
db = typer.Typer(no_args_is_help=True, help="The database.")
cli.add_typer(db, name="db")


@db.command()
def upgrade() -> None:
    """Bring the database to the newest migration, as `alembic upgrade head` does."""
    from alembic import command
    from alembic.config import Config

    command.upgrade(Config("alembic.ini"), "head")


@cli.command()
def openapi() -> None:
    """Print the OpenAPI schema as JSON."""
    from app.main import create_app

    typer.echo(json.dumps(create_app().openapi(), indent=2))


@cli.command()
def check() -> None:
    """Look over this installation; exit with 1 if something needs mending."""
    settings = load_settings()
    findings = list(asyncio.run(examine(settings)))
    for fine, finding in findings:
        typer.echo(f"{'ok   ' if fine else 'MEND '} {finding}")
    if not all(fine for fine, _ in findings):
        raise typer.Exit(1)


async def examine(settings: Settings) -> list[tuple[bool, str]]:
    """What was found, each with whether it is fine as it is."""
    findings = [
        (sys.version_info >= (3, 11), f"Python {platform.python_version()}"),
        (True, f"SQLite {sqlite3.sqlite_version}"),
        (True, f"template version {template_version()}"),
        (True, f"environment {settings.environment or 'not set: as careful as production'}"),
        *((False, f".env: {name} is not a setting{hint}") for name, hint in unknown_names()),
    ]
    database = Database(settings)
    try:
        async with database.readers() as session:
            state = await migration_state(session)
            advice = "" if state.at_head else "; run `alembic upgrade head`"
            findings.append((state.at_head, f"migrations: {state}{advice}"))
            if session.get_bind().dialect.name == "sqlite":
                for pragma in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout"):
                    answer = await session.scalar(text(f"PRAGMA {pragma}"))
                    findings.append((True, f"{pragma} = {answer}"))
    except SQLAlchemyError as error:
        findings.append((False, f"database: {getattr(error, 'orig', error)}"))
    finally:
        await database.dispose()
    return findings


def template_version() -> str:
    """The version of the template that this project was last updated to."""
    answers = Path(".copier-answers.yml")
    if not answers.exists():
        return "unknown"
    commit = re.search(r"^_commit: (.+)$", answers.read_text("utf-8"), re.MULTILINE)
    return commit[1] if commit else "unknown"


def main() -> None:
    cli()
