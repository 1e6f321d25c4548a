"""What people do with their own accounts: register, choose a forgotten password, change names.

A link by email proves that they can read it. A link to a new address confirms it, and a link to the
previous one restores that.
"""

import logging

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import links, sessions, throttle, users
from app.auth.authentication import AuthContext, reauthenticate
from app.auth.links import InvalidLink, LinksUnavailable, OneTimeToken, Purpose
from app.auth.mail import notify, queue_mail
from app.auth.passwords import DUMMY_HASH, hash_new_password
from app.auth.schemas import OwnUserUpdate, PasswordReset, Registration
from app.core.database import Database
from app.core.errors import FieldError, Invalid
from app.models.user import User
from app.schemas.user import UserCreate
from app.settings import Settings

logger = logging.getLogger(__name__)


async def update_own_user(
    database: Database,
    session: AsyncSession,
    settings: Settings,
    caller: AuthContext,
    data: OwnUserUpdate,
    address: str,
) -> User:
    if data.email is not None and settings.registration != "closed":
        reason = "Use POST /api/v1/auth/email/change: a link confirms the new address."
        raise Invalid([FieldError(["body", "email"], reason, "unconfirmed")])
    if data.username or data.email:
        # Limited, since a 409 reveals that another user has this name.
        await throttle.record(database, throttle.rename_key(caller.user_id), address)
    await reauthenticate(session, caller)
    user = await users.load_user(session, user_id=caller.user_id)
    previous = user.email
    async with users.recorded_change(session, caller, user):
        await users.rename(session, user, data.username, data.email)
    if user.email != previous:
        # Without a link: the previous address was not confirmed either, so it may be a stranger's.
        notice = "notify_previous_email"
        await notify(session, settings, user, notice, to=previous, email=user.email)
    return user


async def request_email_change(
    database: Database, settings: Settings, caller: AuthContext, email: str, address: str
) -> None:
    """Send a link to the new address. Whether another user has it shows only when it is used."""
    links.check_available(settings)
    await throttle.record(database, throttle.rename_key(caller.user_id), address)
    await throttle.record(database, links.mailbox_key(email), address)
    async with database.writers.begin() as session:
        await reauthenticate(session, caller)
        user = await session.get_one(User, caller.user_id)
        await links.send(session, settings, Purpose.CHANGE_EMAIL, user, email, caller)


async def confirm_email(database: Database, settings: Settings, token: str) -> None:
    """Do what the link is for: set the new address, or restore the previous one."""
    async with database.readers.begin() as session:
        row = await links.find(session, token, Purpose.CHANGE_EMAIL, Purpose.RESTORE_EMAIL)
    async with database.writers.begin() as session:
        query = select(User).where(User.id == row.user_id).with_for_update()
        user = (await session.scalars(query)).one_or_none()
        if user is None or not user.is_active:
            raise InvalidLink
        await links.take(session, row)
        previous = user.email
        async with users.recorded_change(session, None, user):
            await users.rename(session, user, email=row.email)
            await links.end(session, user.id, Purpose.RESET_PASSWORD, Purpose.INVITATION)
            if row.purpose == Purpose.RESTORE_EMAIL:
                await _lock_out_thief(session, user, row)
                await links.send(session, settings, Purpose.RESET_PASSWORD, user, user.email)
            else:
                way_back = Purpose.RESTORE_EMAIL
                await links.send(session, settings, way_back, user, previous, email=user.email)


async def _lock_out_thief(session: AsyncSession, user: User, way_back: OneTimeToken) -> None:
    """End what the person who changed the address may have: sessions, the password, links."""
    user.password = DUMMY_HASH
    await sessions.revoke_all(session, user.id)
    # Not the ways back to still earlier addresses: this one may be the thief's.
    later_ways_back = delete(OneTimeToken).where(
        OneTimeToken.user_id == user.id,
        OneTimeToken.purpose == Purpose.RESTORE_EMAIL,
        OneTimeToken.expires_at > way_back.expires_at,
    )
    await session.execute(later_ways_back)


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
            link = await links.create_link(session, settings, Purpose.RESET_PASSWORD, user, stored)
            await queue_mail(
                session,
                # The stored address: the typed one may be another spelling of it.
                to=stored or email,
                template="password_reset",
                username=user.username if user else email,
                link=link,
            )
            if user is None:
                await savepoint.rollback()


async def reset_password(
    database: Database, settings: Settings, data: PasswordReset, address: str
) -> None:
    """Set the password that the owner of a link has chosen. Ends all login sessions."""
    async with database.readers.begin() as session:
        row = await links.find(session, data.token, Purpose.RESET_PASSWORD, Purpose.INVITATION)
        user = await session.get(User, row.user_id)
    if user is None:
        raise InvalidLink
    # Limited, since the check of a new password is slow.
    await throttle.record(database, links.use_key(row.token_hash), address)
    hashed = await hash_new_password(
        settings, data.new_password, user.username, user.email, field="new_password"
    )
    async with database.writers.begin() as session:
        user = await session.get(User, user.id, with_for_update=True)
        if user is None or not user.is_active or user.email != row.email:
            raise InvalidLink
        await links.take(session, row)
        async with users.recorded_change(session, None, user):
            await users.set_password(session, settings, user, hashed)
        await throttle.reset(session, links.use_key(row.token_hash))
    fields = {"event": "password_reset", "target_user_id": user.id}
    logger.info("Password reset", extra=fields)


def _check_open(settings: Settings) -> None:
    if settings.registration != "open":
        raise LinksUnavailable("Registration is closed.")


async def request_registration(
    database: Database, settings: Settings, email: str, address: str
) -> None:
    """Send a link for a new account to an address, or tell its user that there is one already.

    Either way, there is one email, from the same statements.
    """
    _check_open(settings)
    await throttle.record(database, links.mailbox_key(email), address)
    async with links.hiding_duration(), database.writers.begin() as session:
        user = await session.scalar(select(User).where(User.email == email))
        template = "registration_known" if user else "registration"
        link = await links.create_link(session, settings, Purpose.REGISTER, user, email)
        # A user who exists gets no link. It is created so that the statements are the same.
        values = {"username": user.username} if user else {"link": link}
        await queue_mail(session, to=email, template=template, **values)


async def register(
    database: Database, settings: Settings, data: Registration, address: str
) -> None:
    """Create the user of a link. It has no permissions."""
    _check_open(settings)
    async with database.readers.begin() as session:
        row = await links.find(session, data.token, Purpose.REGISTER)
    # Limited, since hashing is slow, and a 409 reveals that another user has this name.
    await throttle.record(database, links.use_key(row.token_hash), address)
    new = UserCreate(username=data.username, email=row.email, password=data.password)
    user = await users.new_user(settings, new)
    async with database.writers.begin() as session:
        await links.take(session, row)
        await users.add_user(session, user)
        await throttle.reset(session, links.use_key(row.token_hash))
