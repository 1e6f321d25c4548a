"""Users: how they are found, created, changed and deleted."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import ColumnElement, bindparam, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import contains_eager

from app.auth import audit, links, permissions, sessions, throttle
from app.auth.authentication import AuthContext
from app.auth.mail import notify
from app.auth.models import Purpose
from app.auth.passwords import DUMMY_HASH, hash_new_password
from app.auth.schemas import normalize_email
from app.core.database import Database, is_integrity_error
from app.core.errors import Conflict, FieldError, Invalid, NotFound, PermissionDenied
from app.models.user import Permission, User, user_permissions
from app.schemas.user import UserCreate, UserUpdate
from app.settings import Settings

logger = logging.getLogger(__name__)


# One statement, built once. It reads what another statement of this transaction may have changed.
# `joinedload` would join both tables before it looks for the user: SQLite then reads them all.
_WITH_PERMISSIONS = (
    select(User)
    .outerjoin(user_permissions)
    .outerjoin(Permission)
    .options(contains_eager(User.permissions))
    .order_by(Permission.name)
    .execution_options(populate_existing=True)
)
_BY_ID = _WITH_PERMISSIONS.where(User.id == bindparam("user_id"))


async def load_user(
    session: AsyncSession, *criteria: ColumnElement[bool], user_id: int | None = None
) -> User:
    """By `user_id=1` or by `User.username == name`: a user with permissions, or NotFound."""
    # No user has the id None, so without any criterion there is none.
    statement = _WITH_PERMISSIONS if criteria and user_id is None else _BY_ID
    if criteria:
        statement = statement.where(*criteria)
    user = (await session.scalars(statement, {"user_id": user_id})).unique().one_or_none()
    if user is None:
        raise NotFound("User not found.")
    return user


async def count_invitation(database: Database, sender_id: int, email: str) -> None:
    """Count an invitation by its address, and by its sender in place of a network."""
    name = f"invitation, {links.mailbox_key(email)}"
    await throttle.record(database, name, f"invitations by user {sender_id}")


async def create_user(
    session: AsyncSession, settings: Settings, caller: AuthContext, data: UserCreate
) -> User:
    """Create a user. Unless REGISTRATION is closed, it has no password, and gets an invitation."""
    invites = settings.registration != "closed"
    if data.password is None and not invites:
        raise Invalid([FieldError(["body", "password"], "Field required", "missing")])
    if data.password is not None and invites:
        raise _password_is_private()
    user = await new_user(settings, data)
    await permissions.recheck(session, caller, "users:write")
    await add_user(session, user, caller)
    if invites:
        purpose, inviter = Purpose.INVITATION, caller.username
        await links.send(session, settings, purpose, user, user.email, caller, inviter=inviter)
    return user


def _password_is_private() -> Invalid:
    reason = "Leave out the password. The user chooses it through a link by email."
    return Invalid([FieldError(["body", "password"], reason, "private")])


async def new_user(settings: Settings, data: UserCreate) -> User:
    """A user that is not stored yet. Hashing is slow, so call this before a transaction begins.

    Without a password, the user cannot log in until a link by email has set one.
    """
    email, hashed = normalize_email(data.email), DUMMY_HASH
    if data.password is not None:
        hashed = await hash_new_password(settings, data.password, data.username, email)
    user = User(username=data.username, email=email, password=hashed, is_active=True)
    # Set explicitly: a relationship that was never set cannot be read after the flush.
    user.permissions = []
    return user


async def add_user(session: AsyncSession, user: User, caller: AuthContext | None = None) -> User:
    session.add(user)
    await _flush_names(session)
    await audit.record(session, caller, "user_created", audit.target_user(user))
    logger.info("User created", extra={"event": "user_created", "target_user_id": user.id})
    return user


async def update_user(
    database: Database,
    session: AsyncSession,
    settings: Settings,
    caller: AuthContext,
    user_id: int,
    data: UserUpdate,
) -> User:
    hashed = await _hash_for(database, settings, caller, user_id, data)
    user = await _load_for_change(session, caller, user_id)
    if user.id == caller.user_id and data.email not in (None, user.email):
        raise PermissionDenied("Change your own email address at /api/v1/users/me.")
    return await apply_update(session, settings, caller, user, data, hashed)


async def apply_update(
    session: AsyncSession,
    settings: Settings,
    caller: AuthContext | None,
    user: User,
    data: UserUpdate,
    hashed: str | None = None,
) -> User:
    """Change a user, once the permissions are locked. The password is set from its hash."""
    needed, previous_email = permissions.needed_from(user), user.email
    async with recorded_change(session, caller, user):
        await rename(session, user, data.username, data.email)
        if data.is_active is not None:
            user.is_active = data.is_active
        await session.flush()
        # First, so that the log has no line about sessions that then stay.
        await permissions.require_holders(session, needed)
        if hashed is not None:
            await set_password(session, settings, user, hashed)
        if not user.is_active:
            await sessions.revoke_all(session, user.id)
        if user.email != previous_email or not user.is_active:
            # A thief may have the way back to an address, too.
            await links.end(session, user.id, *Purpose)
    return user


async def _hash_for(
    database: Database, settings: Settings, caller: AuthContext, user_id: int, data: UserUpdate
) -> str | None:
    """Hash the new password of another user, before the transaction of the change begins.

    Checks the caller first, because the reason for a rejection can reveal something about the user.
    """
    if data.password is None:
        return None
    if user_id == caller.user_id:
        raise PermissionDenied("Change your own password with your current one.")
    if settings.registration != "closed":
        raise _password_is_private()
    async with database.readers.begin() as reader:
        user = await load_user(reader, user_id=user_id)
        await permissions.check_manageable(reader, caller.permissions, user)
    username, email = data.username or user.username, data.email or user.email
    return await hash_new_password(settings, data.password, username, email)


async def delete_user(session: AsyncSession, caller: AuthContext, user_id: int) -> None:
    await remove(session, caller, await _load_for_change(session, caller, user_id))


async def remove(session: AsyncSession, caller: AuthContext | None, user: User) -> None:
    """Delete a user, once the permissions are locked."""
    needed = permissions.needed_from(user)
    await session.delete(user)
    await session.flush()
    await permissions.require_holders(session, needed)
    await audit.record(session, caller, "user_deleted", audit.target_user(user))
    logger.info("User deleted", extra={"event": "user_deleted", "target_user_id": user.id})


async def revoke_login_sessions(session: AsyncSession, caller: AuthContext, user_id: int) -> None:
    user = await _load_for_change(session, caller, user_id)
    await sessions.revoke_all(session, user.id)
    await audit.record(session, caller, "sessions_revoked", audit.target_user(user))


async def replace_permissions(
    session: AsyncSession, settings: Settings, caller: AuthContext, user_id: int, names: list[str]
) -> User:
    held = await permissions.recheck(session, caller, "permissions:write", user_id)
    user = await load_user(session, user_id=user_id)
    grantable = await permissions.check_manageable(session, held, user)
    wanted = await permissions.find_permissions(session, names)
    if not grantable.issuperset(names):
        raise PermissionDenied("You can only grant permissions that you hold yourself.")
    await permissions.change_permissions(session, settings, user, wanted, caller)
    return user


async def set_password(session: AsyncSession, settings: Settings, user: User, hashed: str) -> None:
    """Set a password without the current one. Ends all login sessions and resets the throttle."""
    user.password = hashed
    await sessions.revoke_all(session, user.id)
    own_keys = throttle.password_key(user.id), throttle.rename_key(user.id)
    await throttle.reset(session, user.username, user.email, *own_keys)
    await notify_of_new_password(session, settings, user)


async def notify_of_new_password(session: AsyncSession, settings: Settings, user: User) -> None:
    """Tell the user, and end the links with which they could have set another one."""
    await links.end(session, user.id, Purpose.RESET_PASSWORD, Purpose.INVITATION)
    await notify(session, settings, user, "password_changed")


@asynccontextmanager
async def recorded_change(
    session: AsyncSession, caller: AuthContext | None, user: User
) -> AsyncIterator[None]:
    """Record which fields of a user the block changes, never their values.

    Without a caller, it is a command or the use of a link, which needs no login.
    """
    target, before = audit.target_user(user), dict(vars(user))
    yield
    after = {name: value for name, value in vars(user).items() if not name.startswith("_")}
    changed = sorted(name for name, value in after.items() if value != before.get(name))
    if changed:
        await audit.record(session, caller, "user_changed", target, changed=changed)
        fields = {"event": "user_changed", "target_user_id": user.id, "changed": changed}
        logger.info("User changed", extra=fields)


async def _load_for_change(session: AsyncSession, caller: AuthContext, user_id: int) -> User:
    """Lock and load a user, and check again that the caller may change them."""
    held = await permissions.recheck(session, caller, "users:write", user_id)
    user = await load_user(session, user_id=user_id)
    await permissions.check_manageable(session, held, user)
    return user


async def rename(
    session: AsyncSession, user: User, username: str | None = None, email: str | None = None
) -> None:
    """Change the username and email. Failed logins stay counted, under the new ones."""
    username = username or user.username
    email = normalize_email(email) if email is not None else user.email
    await throttle.rename(session, {user.username: username, user.email: email})
    user.username, user.email = username, email
    await _flush_names(session)


async def _flush_names(session: AsyncSession) -> None:
    try:
        await session.flush()
    except IntegrityError as error:
        if is_integrity_error(error):
            raise Conflict("This username or email address is already taken.") from None
        raise
