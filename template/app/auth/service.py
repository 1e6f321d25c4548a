"""Logging in, and changing the password.

Hashing is slow and must hold neither a lock nor a connection. So each function runs several short
transactions, and the last one checks again what the earlier ones read.
"""

import asyncio
import logging
import time

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import audit, sessions, throttle, users
from app.auth.authentication import AuthContext, Client, reauthenticate
from app.auth.mail import notify
from app.auth.passwords import DUMMY_HASH, hash_new_password, verify_password
from app.auth.schemas import TokenRead, normalize_login
from app.core.database import Database
from app.core.errors import Conflict, PermissionDenied, Unauthenticated
from app.models.user import User
from app.settings import Settings

logger = logging.getLogger(__name__)

# Another login may replace the hash while this one verifies it; then the new hash is verified.
_MAX_ROUNDS = 3

# A failed login takes at least this long. Otherwise its duration would tell whether the user exists
# and has a hash with other parameters, or none.
_FAILURE_SECONDS = 0.5


class InvalidCredentials(Unauthenticated):
    """The same for a wrong password, an unknown name and an inactive user."""

    detail = "Invalid username or password."


class WrongCurrentPassword(PermissionDenied):
    detail = "The current password is wrong."
    event = "password_change_failed"


async def log_in(
    database: Database, settings: Settings, login: str, password: str, client: Client
) -> TokenRead:
    name = normalize_login(login)
    # Counted by the typed name, not by the user. A shared counter would reveal that a username and
    # an email address belong together. Text that cannot be a name may be a password in the wrong
    # field, so not even its hash is stored.
    typed_name = name or f"no name, from {client.address}"
    async with database.readers.begin() as session:
        user = await _find_user(session, name)
        stored_hash = user.password if user else DUMMY_HASH
        counted = await throttle.choose_name(session, typed_name, stored_hash, client.address)
    try:
        async with throttle.attempt(database, counted, client.address, InvalidCredentials):
            started = time.monotonic()
            return await _verify_and_log_in(database, settings, name, counted, password, client)
    except InvalidCredentials:
        await asyncio.sleep(_FAILURE_SECONDS - (time.monotonic() - started))
        raise


async def _verify_and_log_in(
    database: Database,
    settings: Settings,
    name: str | None,
    counted_name: str,
    password: str,
    client: Client,
) -> TokenRead:
    for _ in range(_MAX_ROUNDS):
        async with database.readers.begin() as session:
            user = await _find_user(session, name)
        stored_hash = user.password if user else DUMMY_HASH
        check = await verify_password(password, stored_hash)
        if user is None or not user.is_active or not check.is_correct:
            break
        async with database.writers.begin() as session:
            current = await session.get(User, user.id, with_for_update=True)
            if current is None or not current.is_active or current.password != stored_hash:
                continue
            is_new = await throttle.remember(session, stored_hash, client.address)
            if check.new_hash:
                # The same password with other parameters.
                current.password = check.new_hash
                await throttle.remember(session, check.new_hash, client.address)
            token = await sessions.create_login_session(session, settings, user.id, client)
            if is_new:
                device = client.user_agent[:200]
                await notify(
                    session, settings, current, "new_login", address=client.address, device=device
                )
            # Last, since other logins from this address wait for its counter.
            await throttle.undo(session, counted_name, client.address)
        logger.info("Logged in", extra={"event": "login", "user_id": user.id})
        return token
    # The name is not logged: some people type their password there.
    fields = {"user_id": user.id} if user else {}
    logger.warning("Login failed", extra={"event": "login_failed", **fields})
    raise InvalidCredentials


async def _find_user(session: AsyncSession, name: str | None) -> User | None:
    if name is None:
        return None
    column = User.email if "@" in name else User.username
    user: User | None = await session.scalar(select(User).where(column == name))
    return user


async def change_password(
    database: Database,
    settings: Settings,
    caller: AuthContext,
    current: str,
    new: str,
    client: Client,
) -> TokenRead:
    """Replace the caller's password, end all login sessions and begin a new one."""
    counted_name = throttle.password_key(caller.user_id)
    async with throttle.attempt(database, counted_name, client.address, WrongCurrentPassword):
        async with database.readers.begin() as session:
            own_hash = select(User.password).where(User.id == caller.user_id)
            stored_hash = await session.scalar(own_hash)
        if not (await verify_password(current, stored_hash or DUMMY_HASH)).is_correct:
            raise WrongCurrentPassword
    try:
        hashed = await hash_new_password(
            settings, new, caller.username, caller.email, field="new_password"
        )
    finally:
        # Only now, so that a user can have at most five new passwords checked at once. The address
        # gets no attempt back, because checking a new password costs more than a login.
        async with database.writers.begin() as session:
            await throttle.reset(session, counted_name)
    async with database.writers.begin() as session:
        await reauthenticate(session, caller)
        user = await session.get_one(User, caller.user_id)
        if user.password != stored_hash:
            raise Conflict("Your password was changed by another request.")
        user.password = hashed
        await throttle.remember(session, hashed, client.address)
        await sessions.revoke_all(session, user.id)
        target = audit.target_user(user)
        await audit.record(session, caller, "password_changed", target, changed=["password"])
        token = await sessions.create_login_session(session, settings, user.id, client)
        await users.notify_of_new_password(session, settings, user)
    logger.info("Password changed", extra={"event": "password_changed"})
    return token
