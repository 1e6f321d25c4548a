"""Accounts: who may change which, and that somebody can always change the others."""

import logging
from typing import Any, cast

from sqlalchemy import CursorResult, insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database
from app.models.user import User
from app.passwords import hash_new_password
from app.schemas.auth import AccountUpdate
from app.schemas.user import UserCreate, UserRead, UserUpdate
from app.security import PermissionDenied
from app.services import rights, sessions, throttle, throttle_rules
from app.services.identity import Identity, confirm_session
from app.services.names import fold_email, taken_names
from app.services.sessions import Client
from app.services.user_queries import read_user
from app.settings import Settings

logger = logging.getLogger(__name__)


# Built once: an insert that SQLAlchemy builds for each new object takes twice as long.
INSERT_USER = insert(User.metadata.tables[User.__tablename__])


async def create_user(
    session: AsyncSession, settings: Settings, actor: Identity, data: UserCreate
) -> UserRead:
    row = await new_row(settings, data)
    await rights.confirm(session, actor, "users:write")
    row["id"] = await add_row(session, row)
    return UserRead.model_validate({**row, "permissions": []})


async def new_row(settings: Settings, data: UserCreate) -> dict[str, Any]:
    """What is stored of a new account. Takes as long as hashing does, and needs no transaction."""
    email = fold_email(data.email)
    hashed = await hash_new_password(settings, data.password, data.username, email)
    return {"username": data.username, "email": email, "password": hashed, "is_active": True}


async def add_row(session: AsyncSession, row: dict[str, Any]) -> int:
    """Returns the id of the new account."""
    with taken_names():
        result = cast(CursorResult[Any], await session.execute(INSERT_USER, row))
    # None only for an insert of several rows.
    number = int(result.inserted_primary_key[0])  # type: ignore[index]
    logger.info("User created", extra={"event": "user_created", "subject": number})
    return number


async def update_user(
    database: Database,
    session: AsyncSession,
    settings: Settings,
    actor: Identity,
    user_id: int,
    data: UserUpdate,
) -> UserRead:
    hashed = None
    if data.password is not None:
        if user_id == actor.user_id:
            raise PermissionDenied("Your own password is changed at /api/v1/auth/password.")
        # First of all, since what is said about a password tells something about its user.
        async with database.readers() as reader:
            before = await rights.load_user_within(reader, actor.permissions, user_id)
        names = (data.username or before.username, data.email or before.email)
        hashed = await hash_new_password(settings, data.password, *names)
    held = await rights.confirm(session, actor, "users:write", user_id)
    user = await rights.load_user_within(session, held, user_id)
    was_administrator = rights.is_administrator(user)
    await rename(session, user, data)
    if data.is_active is not None:
        user.is_active = data.is_active
    if hashed is not None:
        await set_password(session, user, hashed)
    if not user.is_active:
        await sessions.revoke_all(session, user.id)
    with taken_names():
        await session.flush()
    if was_administrator:
        await rights.keep_an_administrator(session)
    logger.info("User changed", extra={"event": "user_changed", "subject": user_id})
    return await read_user(session, user_id)


async def update_account(
    database: Database, session: AsyncSession, actor: Identity, data: AccountUpdate, client: Client
) -> UserRead:
    if data.username is not None or data.email is not None:
        # Counted, since the answer tells whether there is such an account.
        own_names = throttle_rules.own_names(actor.user_id)
        await throttle.reserve(database, own_names, client.address, throttle_rules.RENAMES)
    await confirm_session(session, actor)
    user = await session.get_one(User, actor.user_id)
    await rename(session, user, data)
    with taken_names():
        await session.flush()
    logger.info("User changed", extra={"event": "user_changed", "subject": user.id})
    return await read_user(session, user.id)


async def delete_user(session: AsyncSession, actor: Identity, user_id: int) -> None:
    held = await rights.confirm(session, actor, "users:write", user_id)
    user = await rights.load_user_within(session, held, user_id)
    was_administrator = rights.is_administrator(user)
    await session.delete(user)
    await session.flush()
    # SQLite gives the largest id again once its row is gone.
    await throttle.forget(session, *throttle_rules.own_keys(user_id))
    if was_administrator:
        await rights.keep_an_administrator(session)
    logger.info("User deleted", extra={"event": "user_deleted", "subject": user_id})


async def log_out_user(session: AsyncSession, actor: Identity, user_id: int) -> None:
    held = await rights.confirm(session, actor, "users:write", user_id)
    user = await rights.load_user_within(session, held, user_id)
    await sessions.revoke_all(session, user.id)


async def rename(session: AsyncSession, user: User, data: AccountUpdate | UserUpdate) -> None:
    """New names, under which log-ins that failed stay counted."""
    username = data.username or user.username
    email = fold_email(data.email) if data.email is not None else user.email
    await throttle.rename(session, {user.username: username, user.email: email})
    user.username, user.email = username, email


async def set_password(session: AsyncSession, user: User, hashed: str) -> None:
    """By somebody else: ends every session, and forgives what the user or a guesser mistyped."""
    user.password = hashed
    await sessions.revoke_all(session, user.id)
    await throttle.forget(session, user.username, user.email, *throttle_rules.own_keys(user.id))
