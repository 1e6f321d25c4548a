"""Chores on the command line: `python -m app --help`."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

import app as project
from app.settings import load_settings

# Each command imports what it alone needs: --help and the others stay quick.
cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # Their tracebacks show the values of variables, passwords among them.
    pretty_exceptions_enable=False,
    help=project.__doc__,
)
db = typer.Typer(no_args_is_help=True, help="The database.")
cli.add_typer(db, name="db")


def fail(reason: object) -> typer.Exit:
    typer.echo(f"Error: {reason}", err=True)
    return typer.Exit(1)


@cli.command()
def check(deploy: Annotated[bool, typer.Option(help="Is it fit for production?")] = False) -> None:
    """Look over this installation; exit with 1 if something needs mending."""
    from app.doctor import examine

    findings = asyncio.run(examine(load_settings(for_production=deploy)))
    for finding in findings:
        typer.echo(f"{finding.verdict:5} {finding.sentence}")
    if any(finding.verdict == "mend" for finding in findings):
        raise typer.Exit(1)


@cli.command()
def openapi() -> None:
    """Print the OpenAPI schema as JSON."""
    from app.main import create_app

    typer.echo(json.dumps(create_app().openapi(), indent=2))


@db.command()
def upgrade() -> None:
    """Bring the database to the newest migration, as `alembic upgrade head` does."""
    from alembic import command
    from alembic.config import Config

    if not Path("alembic.ini").exists():
        raise fail("there is no alembic.ini here: run this in the folder of the project")
    command.upgrade(Config("alembic.ini"), "head")


@db.command()
def backup(path: Path) -> None:
    """Copy the SQLite database to a new file, while the app runs."""
    from app.db.backup import BackupError, back_up, database_file
    from app.db.engine import parse_url

    try:
        back_up(database_file(parse_url(load_settings().database_url)), path)
    except BackupError as error:
        raise fail(error) from None
    typer.echo(f"Backed up to {path}")


@db.command()
def restore(path: Path) -> None:
    """Put a backup in the place of the SQLite database, which must be empty or gone; stop the app first."""
    from app.db.backup import BackupError, database_file
    from app.db.backup import restore as put_back
    from app.db.engine import parse_url

    try:
        put_back(path, database_file(parse_url(load_settings().database_url)))
    except BackupError as error:
        raise fail(error) from None
    typer.echo(f"Restored from {path}. Sessions and rows are those of that time.")


@db.command()
def copy_to(url: str) -> None:
    """Copy every row to an empty database that has been migrated, such as postgresql://..."""
    from rich.progress import Progress, TaskID
    from sqlalchemy.exc import DBAPIError

    from app.settings import check_database_url
    from app.transfer import TransferError, transfer

    try:
        check_database_url(url)
    except ValueError as error:
        raise fail(f"{error} (the URL of the target)") from None

    tasks: dict[str, TaskID] = {}
    with Progress() as bars:

        def show(table: str, done: int, total: int) -> None:
            if table not in tasks:
                tasks[table] = bars.add_task(table)
            bars.update(tasks[table], completed=done, total=total)

        try:
            copied = transfer(load_settings().database_url, url, show)
        except TransferError as error:
            raise fail(error) from None
        except DBAPIError as error:
            raise fail(error.orig) from None
    typer.echo(f"Copied and compared: {sum(copied.values())} rows in {len(copied)} tables.")


def main() -> None:
    cli()
