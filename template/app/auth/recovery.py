"""Forgotten passwords: a link by email, with which users choose a new one."""

import logging

from sqlalchemy import select

from app.auth import links, throttle, users
from app.auth.links import InvalidLink, Purpose
from app.auth.mail import queue_mail
from app.auth.passwords import hash_new_password
from app.core.database import Database
from app.models.user import User
from app.settings import Settings

logger = logging.getLogger(__name__)


async def request_password_reset(
    database: Database, settings: Settings, email: str, address: str
) -> None:
    """Send a link to this address, if an active user has it.

    If not, the same statements run, and then all of them are undone. So neither the response nor
    the work tells strangers who has an account here, and their requests fill no table.
    """
    links.check_available(settings)
    # Apart from other emails, and by the exact address: requests that send a user no link must not
    # keep the user from getting one.
    await throttle.record(database, f"forgotten password of {email}", address)
    async with links.hiding_duration(), database.writers.begin() as session:
        active_user = select(User).where(User.email == email, User.is_active)
        user = await session.scalar(active_user.with_for_update())
        stored = user.email if user else ""
        async with session.begin_nested() as savepoint:
            token = await links.create(session, Purpose.RESET_PASSWORD, user, stored)
            await queue_mail(
                session,
                # The stored address: the typed one may be another spelling of it.
                to=stored or email,
                template="password_reset",
                username=user.username if user else email,
                link=links.url(settings, Purpose.RESET_PASSWORD, token),
            )
            if user is None:
                await savepoint.rollback()


async def reset_password(
    database: Database, settings: Settings, token: str, new_password: str, address: str
) -> None:
    """Set the password that the owner of a link has chosen. Ends all login sessions."""
    async with database.readers.begin() as session:
        row = await links.find(session, token, Purpose.RESET_PASSWORD, Purpose.INVITATION)
        user = await session.get(User, row.user_id)
    if user is None:
        raise InvalidLink
    # Limited, since the check of a new password is slow.
    await throttle.record(database, links.use_key(row.token_hash), address)
    hashed = await hash_new_password(
        settings, new_password, user.username, user.email, field="new_password"
    )
    async with database.writers.begin() as session:
        user = await session.get(User, user.id, with_for_update=True)
        if user is None or not user.is_active or user.email != row.email:
            raise InvalidLink
        await links.take(session, row)
        await users.reset_password(session, settings, user, hashed)
        await throttle.reset(session, links.use_key(row.token_hash))
    fields = {"event": "password_reset", "target_user_id": user.id}
    logger.info("Password reset", extra=fields)
