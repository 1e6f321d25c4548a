"""Logging in, and changing one's password: counted, checked, and only then let through.

Hashing takes a while and must hold neither a lock nor a connection. So each of these is several
short transactions, the last of which looks again at what was checked.
"""

import logging

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database
from app.errors import Conflict
from app.models.user import User
from app.passwords import hash_new_password
from app.security import DECOY, PermissionDenied, Unauthenticated, verify_password
from app.services import sessions, throttle, throttle_rules
from app.services.identity import Identity, confirm_session
from app.services.names import fold_login
from app.services.sessions import Client, IssuedToken
from app.settings import Settings

logger = logging.getLogger(__name__)

# A hash can change under a log-in because another one renews it: then the new one is checked.
ROUNDS = 3


class WrongCredentials(Unauthenticated):
    """The same for a wrong password, an unknown name and an inactive account."""

    detail = "Wrong username or password."


class WrongCurrentPassword(PermissionDenied):
    detail = "This is not your current password."
    event = "password_change_failed"


async def log_in(
    database: Database, settings: Settings, login: str, password: str, client: Client
) -> IssuedToken:
    name = fold_login(login)
    # Counted by the name that was typed and not by the user's id: a shared count would tell that a
    # username and an e-mail address belong together. What can't be a name may be a password in the
    # wrong field, so not even its hash is stored.
    account = name or f"no name, from {client.address}"
    await throttle.reserve(database, account, client.address)
    for _ in range(ROUNDS):
        async with database.readers() as session:
            user = await find_user(session, name)
        stored = user.password if user else DECOY
        verdict = await verify_password(password, stored)
        if user is None or not user.is_active or not verdict.is_right:
            break
        async with database.writers.begin() as session:
            current = await session.get(User, user.id, with_for_update=True)
            if current is None or not current.is_active or current.password != stored:
                continue
            current.password = verdict.new_hash or stored
            await throttle.refund(session, account, client.address)
            issued = await sessions.open_session(session, settings, user.id, client)
        logger.info("Logged in", extra={"event": "login", "user_id": user.id})
        return issued
    # Not the name: some people type their password there.
    who = {"user_id": user.id} if user else {}
    logger.warning("Log-in refused", extra={"event": "login_failed", **who})
    raise WrongCredentials


async def find_user(session: AsyncSession, name: str | None) -> User | None:
    if name is None:
        return None
    column = User.email if "@" in name else User.username
    found: User | None = await session.scalar(select(User).where(column == name))
    return found


async def change_password(
    database: Database, settings: Settings, actor: Identity, current: str, new: str, client: Client
) -> IssuedToken:
    """Replace one's own password, end every session, and begin a new one."""
    account = throttle_rules.own_account(actor.user_id)
    await throttle.reserve(database, account, client.address)
    async with database.readers() as session:
        stored = await session.scalar(select(User.password).where(User.id == actor.user_id))
    if not (await verify_password(current, stored or DECOY)).is_right:
        raise WrongCurrentPassword
    try:
        hashed = await hash_new_password(
            settings, new, actor.username, actor.email, field="new_password"
        )
    finally:
        # Only now: until then, it limits a user to five estimates of a password at a time. And not
        # for the address: a new password costs more than a log-in, so there every one counts.
        async with database.writers.begin() as session:
            await throttle.forget(session, account)
    async with database.writers.begin() as session:
        await confirm_session(session, actor)
        user = await session.get_one(User, actor.user_id)
        if user.password != stored:
            raise Conflict("Your password was changed meanwhile.")
        user.password = hashed
        await sessions.revoke_all(session, user.id)
        issued = await sessions.open_session(session, settings, user.id, client)
    logger.info("Password changed", extra={"event": "password_changed"})
    return issued
