"""What users can change in their own account: their username and their email address.

A link to the new address confirms it, and a link to the previous one restores that.
"""

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import links, throttle, users
from app.auth.authentication import AuthContext, reauthenticate
from app.auth.links import OneTimeToken, Purpose
from app.auth.mail import notify
from app.auth.schemas import OwnUserUpdate
from app.core.database import Database
from app.core.errors import FieldError, Invalid
from app.models.user import User
from app.settings import Settings


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
    if data.username is not None or data.email is not None:
        # Limited, since a 409 reveals that another user has this name.
        name = throttle.rename_key(caller.user_id)
        await throttle.record(database, name, address)
    await reauthenticate(session, caller)
    user = await users.load_user(session, user_id=caller.user_id)
    before = dict(vars(user))
    await users.rename(session, user, data.username, data.email)
    if user.email != (previous := str(before["email"])):
        # Without a link: the previous address was not confirmed either, so it may be a stranger's.
        await notify(
            session, settings, user, "notify_previous_email", to=previous, email=user.email
        )
    await users.record_change(session, caller, user, before)
    return user


async def request_email_change(
    database: Database,
    settings: Settings,
    caller: AuthContext,
    email: str,
    address: str,
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
            raise links.InvalidLink
        await links.take(session, row)
        before, previous = dict(vars(user)), user.email
        await users.rename(session, user, email=row.email)
        if row.purpose == Purpose.CHANGE_EMAIL:
            await links.end(session, user.id, Purpose.RESET_PASSWORD, Purpose.INVITATION)
            await links.send(
                session, settings, Purpose.RESTORE_EMAIL, user, previous, email=user.email
            )
        else:
            await _lock_out_thief(session, settings, user, row)
        # Without a caller, since the user of a link need not be logged in.
        await users.record_change(session, None, user, before)


async def _lock_out_thief(
    session: AsyncSession, settings: Settings, user: User, row: OneTimeToken
) -> None:
    """End what the person who changed the address may have: sessions, the password, links."""
    # Not the ways back to still earlier addresses: this one may be the thief's.
    later_ways_back = delete(OneTimeToken).where(
        OneTimeToken.user_id == user.id,
        OneTimeToken.purpose == Purpose.RESTORE_EMAIL,
        OneTimeToken.expires_at > row.expires_at,
    )
    await session.execute(later_ways_back)
    await users.remove_password(session, user)
    await links.send(session, settings, Purpose.RESET_PASSWORD, user, user.email)
