"""Users and permissions on the command line. The first administrator is created here."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.core.commands import fail, prompt_secret, run
from app.settings import load_settings

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.models.user import User

# Each command imports what it needs, so that --help stays fast.
user = typer.Typer(no_args_is_help=True, help="Create, list and change users.")
permission = typer.Typer(no_args_is_help=True, help="Grant and revoke permissions.")

Username = Annotated[str, typer.Argument(help="3 to 32 of a-z, 0-9, dot, _ and -.")]
Email = Annotated[str, typer.Argument(help="An email address.")]
ExistingUser = Annotated[str, typer.Argument(help="The username of an existing user.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Such as users:read.")]


@user.command()
def create(username: Username, email: Email) -> None:
    """Create a user without permissions. Asks for the password, or reads it from stdin."""
    run_command("user create", _create_user(username, email, _prompt_password(), []))
    typer.echo(f"Created {username}.")


@user.command()
def create_admin(username: Username, email: Email) -> None:
    """Create a user with every permission. Asks for the password, or reads it from stdin."""
    from app.permissions import PermissionName

    work = _create_user(username, email, _prompt_password(), [*PermissionName])
    run_command("user create-admin", work)
    typer.echo(f"Created {username} with every permission.")


@user.command()
def set_password(username: ExistingUser) -> None:
    """Set a new password, which ends all sessions of the user and resets failed logins."""
    run_command("user set-password", _set_password(username, _prompt_password()))
    typer.echo(f"Changed the password of {username} and ended all sessions.")


@user.command()
def deactivate(username: ExistingUser) -> None:
    """End all sessions of a user and reject their logins, until `user activate`."""
    run_command("user deactivate", _set_active(username, False))
    typer.echo(f"Deactivated {username} and ended all sessions.")


@user.command()
def activate(username: ExistingUser) -> None:
    """Let a user log in again after `user deactivate`."""
    run_command("user activate", _set_active(username, True))
    typer.echo(f"Activated {username}.")


@user.command()
def delete(username: ExistingUser) -> None:
    """Delete a user for good, with their sessions and API keys."""
    run_command("user delete", _delete_user(username))
    typer.echo(f"Deleted {username}.")


@user.command(name="list")
def list_users() -> None:
    """List all users: id, username, email, active or inactive, permissions."""
    run_command("user list", _list_users())


@permission.command()
def grant(username: ExistingUser, names: Names) -> None:
    """Grant permissions to a user."""
    work = _change_permissions(username, names, lambda held: held | {*names})
    run_command("permission grant", work)


@permission.command()
def revoke(username: ExistingUser, names: Names) -> None:
    """Revoke permissions from a user."""
    work = _change_permissions(username, names, lambda held: held - {*names})
    run_command("permission revoke", work)


def audit(
    by: Annotated[str, typer.Option(help="Only what the user with this name did.")] = "",
    on: Annotated[str, typer.Option(help="Only what was done to the user with this name.")] = "",
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="Only from then on, in UTC."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many events.")] = 100,
) -> None:
    """List who changed which user, permission or login session, newest first."""
    run_command("audit", _list_events(by, on, since, limit))


def _prompt_password() -> str:
    length = load_settings().password_min_length
    rule = f"At least {length} characters, such as four or five unrelated words."
    return prompt_secret("Password", rule)


async def _create_user(username: str, email: str, password: str, names: list[str]) -> None:
    from app.auth import permissions, users
    from app.core.database import Database
    from app.schemas.user import UserCreate

    settings = load_settings()
    data = UserCreate(username=username, email=email, password=password)
    new_user = await users.new_user(settings, data)
    async with Database(settings) as database, database.writers.begin() as session:
        await users.add_user(session, new_user)
        if names:
            found = await permissions.find_permissions(session, names)
            await permissions.set_permissions(session, new_user, found)


async def _set_password(username: str, password: str) -> None:
    from app.auth import users
    from app.auth.passwords import hash_new_password
    from app.core.database import Database
    from app.schemas.user import UserUpdate

    settings = load_settings()
    UserUpdate(password=password)  # raises ValidationError
    is_wanted = _is_named(username)
    async with Database(settings) as database:
        async with database.readers() as session:
            found = await users.load_user(session, is_wanted)
        hashed = await hash_new_password(settings, password, found.username, found.email)
        async with database.writers.begin() as session:
            found = await users.load_user(session, is_wanted)
            async with users.recorded_change(session, None, found):
                await users.set_password(session, settings, found, hashed)


async def _set_active(username: str, is_active: bool) -> None:
    from app.auth import users
    from app.schemas.user import UserUpdate

    async with _user_to_change(username) as (session, found):
        data = UserUpdate(is_active=is_active)
        await users.apply_update(session, load_settings(), None, found, data)


async def _delete_user(username: str) -> None:
    from app.auth import users

    async with _user_to_change(username) as (session, found):
        await users.remove(session, None, found)


async def _list_users() -> None:
    from sqlalchemy import select
    from sqlalchemy.orm import selectinload

    from app.core.database import Database
    from app.models.user import User

    statement = select(User).options(selectinload(User.permissions)).order_by(User.id)
    async with Database(load_settings()) as database, database.readers() as session:
        rows = await session.stream_scalars(statement.execution_options(yield_per=500))
        async for row in rows:
            names = ",".join(held.name for held in row.permissions) or "-"
            state = "active" if row.is_active else "inactive"
            typer.echo(f"{row.id}\t{row.username}\t{row.email}\t{state}\t{names}")


async def _list_events(by: str, on: str, since: datetime | None, limit: int) -> None:
    from app.auth.audit import describe, filter_events, find_user_id
    from app.auth.models import AuditEvent
    from app.core.database import Database

    async with Database(load_settings()) as database, database.readers() as session:
        actor = await find_user_id(session, by) if by else None
        target = await find_user_id(session, on) if on else None
        events = filter_events(actor, "users", target, since and since.replace(tzinfo=UTC))
        newest_first = AuditEvent.created_at.desc(), AuditEvent.id.desc()
        statement = events.order_by(*newest_first).limit(limit)
        async for event in await session.stream_scalars(statement.execution_options(yield_per=500)):
            typer.echo(describe(event))


async def _change_permissions(
    username: str, names: list[str], change: Callable[[frozenset[str]], frozenset[str]]
) -> None:
    from app.auth import permissions

    async with _user_to_change(username) as (session, found):
        await permissions.find_permissions(session, names)
        wanted = sorted(change(permissions.granted(found)))
        granted = await permissions.find_permissions(session, wanted)
        await permissions.change_permissions(session, load_settings(), found, granted)
    typer.echo(f"{username} holds {', '.join(wanted) or 'no permission'}.")


@asynccontextmanager
async def _user_to_change(username: str) -> AsyncIterator[tuple["AsyncSession", "User"]]:
    """A user in a transaction that alone can change who holds which permission."""
    from app.auth import permissions, users
    from app.core.database import Database

    async with Database(load_settings()) as database, database.writers.begin() as session:
        await permissions.lock_permissions(session)
        yield session, await users.load_user(session, _is_named(username))


def _is_named(username: str) -> "ColumnElement[bool]":
    """The user with this name in any spelling. No user, if none can have it."""
    from app.auth.schemas import normalize_login
    from app.models.user import User

    return User.username == (normalize_login(username) or "")


def _run_logged(command: str, work: Coroutine[Any, Any, None]) -> None:
    from app.core.logging import log_command

    log_command(load_settings(), command)
    run(work)


def run_command(command: str, work: Coroutine[Any, Any, None]) -> None:
    """Run a command; an error becomes one line on standard error."""
    from pydantic import ValidationError
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.orm.exc import StaleDataError

    from app.core.database import is_integrity_error
    from app.core.errors import AppError

    try:
        # If the settings are invalid, the work never begins.
        with closing(work):
            copy_context().run(_run_logged, command, work)
    except AppError as error:
        # A field, without a position: on the command line, a message names the value.
        errors = (f"{e.loc[1]}: {e.msg}" for e in error.errors or ())
        raise fail("; ".join(errors) or error.detail) from None
    except ValidationError as error:
        raise fail("; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())) from None
    except StaleDataError:
        raise fail("the row was just changed or deleted; try again") from None
    except DBAPIError as error:
        is_conflict = is_integrity_error(error)
        hint = "; other rows refer to it, or have the same value" if is_conflict else ""
        raise fail(f"Database error: {error.orig}{hint}") from None
