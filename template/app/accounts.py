"""Accounts on the command line: the first administrator is made here, and nowhere else."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from app.console import ask_secret, fail, run
from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from app.db.session import Database

user = typer.Typer(no_args_is_help=True, help="Accounts.")
permission = typer.Typer(no_args_is_help=True, help="What accounts may do.")

Names = Annotated[list[str], typer.Argument(metavar="NAME...")]


@user.command()
def create(username: str, email: str) -> None:
    """Make an account without permissions; the password is asked for, or a line of stdin."""
    create_account(username, email, [])
    typer.echo(f"Created {username}.")


@user.command()
def create_admin(username: str, email: str) -> None:
    """Make an account with every permission of the code; the password as in `create`."""
    from app.permissions import PERMISSIONS

    create_account(username, email, [*PERMISSIONS])
    typer.echo(f"Created {username}, who holds every permission.")


@user.command()
def set_password(username: str) -> None:
    """Give an account a new password: its sessions end, and what was mistyped is forgiven."""
    from app.passwords import hash_new_password
    from app.schemas.auth import NewPassword
    from app.services import rights, users

    password = ask_secret("Password")

    async def work(database: "Database", settings: Settings) -> None:
        new = NewPassword(password=password).password
        async with database.readers() as session:
            account = await rights.load_by_username(session, username)
        hashed = await hash_new_password(settings, new, account.username, account.email)
        async with database.writers.begin() as session:
            account = await rights.load_by_username(session, username)
            await users.set_password(session, account, hashed)

    with_database(work)
    typer.echo(f"{username} has a new password, and no session any more.")


@user.command(name="list")
def list_users() -> None:
    """Show every account: id, username, e-mail, whether it is active, its permissions."""
    from app.services import user_queries

    async def work(database: "Database", _: Settings) -> None:
        last = 0
        while True:
            async with database.readers() as session:
                found = await user_queries.list_users(session, after=last, count=500)
            if not found:
                return
            last = found[-1].id
            for account in found:
                names = ",".join(held.name for held in account.permissions) or "-"
                state = "active" if account.is_active else "inactive"
                typer.echo(f"{account.id}\t{account.username}\t{account.email}\t{state}\t{names}")

    with_database(work)


@permission.command()
def grant(username: str, names: Names) -> None:
    """Give permissions to an account."""
    change_permissions(username, names, lambda held: held | set(names))


@permission.command()
def revoke(username: str, names: Names) -> None:
    """Take permissions from an account."""
    change_permissions(username, names, lambda held: held - set(names))


def change_permissions(
    username: str, names: list[str], how: Callable[[set[str]], set[str]]
) -> None:
    from app.services import rights

    async def work(database: "Database", _: Settings) -> None:
        async with database.writers.begin() as session:
            await rights.lock_rights(session)
            await rights.find_permissions(session, names)
            account = await rights.load_by_username(session, username)
            wanted = sorted(how(set(rights.held_by(account))))
            await rights.assign(session, account, await rights.find_permissions(session, wanted))
        typer.echo(f"{username} holds {', '.join(wanted) or 'no permission'}.")

    with_database(work)


def create_account(username: str, email: str, names: list[str]) -> None:
    from app.schemas.user import UserCreate
    from app.services import rights, users

    password = ask_secret("Password")

    async def work(database: "Database", settings: Settings) -> None:
        data = UserCreate(username=username, email=email, password=password)
        row = await users.new_row(settings, data)
        async with database.writers.begin() as session:
            number = await users.add_row(session, row)
            if names:
                account = await rights.load_user(session, number)
                permissions = await rights.find_permissions(session, names)
                await rights.assign(session, account, permissions)

    with_database(work)


def with_database(work: Callable[["Database", Settings], Awaitable[None]]) -> None:
    """Do this with the database of the settings; what goes wrong is said in a sentence."""
    from pydantic import ValidationError
    from sqlalchemy.exc import DBAPIError

    from app.db.faults import is_outage
    from app.db.session import Database
    from app.errors import AppError

    async def opened() -> None:
        settings = load_settings()
        async with Database(settings) as database:
            await work(database, settings)

    try:
        run(opened())
    except AppError as error:
        faults = (f"{'.'.join(fault.loc[1:])}: {fault.msg}" for fault in error.errors or ())
        raise fail("; ".join(faults) or error.detail) from None
    except ValidationError as error:
        raise fail("; ".join(f"{f['loc'][0]}: {f['msg']}" for f in error.errors())) from None
    except DBAPIError as error:
        hint = "" if is_outage(error, only_reads=False) else "; does it have every migration?"
        raise fail(f"the database: {error.orig}{hint}") from None
