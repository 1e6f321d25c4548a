"""Who may change which user.

Users cannot grant permissions that they lack, or change users who hold more than they do.
"""

import logging
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import audit
from app.auth.authentication import AuthContext, reauthenticate
from app.auth.mail import notify
from app.core.database import locks_rows
from app.core.errors import Conflict, FieldError, Invalid, PermissionDenied
from app.models.user import Permission, User, user_permissions
from app.permissions import PermissionName
from app.settings import Settings

logger = logging.getLogger(__name__)

# The last active holder of each must stay. Without one, only the command line could help.
_ALWAYS_HELD = frozenset({PermissionName.PERMISSIONS_WRITE.value, PermissionName.USERS_WRITE.value})


def granted(user: User) -> frozenset[str]:
    return frozenset(permission.name for permission in user.permissions)


def needed_from(user: User) -> frozenset[str]:
    """The permissions of this user that always need an active holder."""
    return granted(user) & _ALWAYS_HELD if user.is_active else frozenset()


async def lock_permissions(session: AsyncSession) -> None:
    """One change at a time: otherwise two administrators could remove each other at once."""
    if locks_rows(session):
        name = PermissionName.PERMISSIONS_WRITE.value
        query = select(Permission.id).where(Permission.name == name)
        await session.execute(query.with_for_update())


async def recheck(
    session: AsyncSession, caller: AuthContext, needed: str, user_id: int | None = None
) -> frozenset[str]:
    """Check the caller again, in the transaction of a change; returns their permissions.

    The session may have ended, and permissions may have been revoked, since the request was let in.
    """
    await lock_permissions(session)
    held = await reauthenticate(session, caller, user_id)
    if needed not in held:
        raise PermissionDenied
    return held


async def check_manageable(
    session: AsyncSession, held: frozenset[str], user: User
) -> frozenset[str]:
    """Reject a change to a user who holds more. Returns what a holder of `held` can grant.

    These are their own permissions. Holders of every declared one can also manage those that the
    code no longer declares: otherwise no one could manage the users who still have one.
    """
    if held >= {*PermissionName}:
        held |= frozenset(await session.scalars(select(Permission.name)))
    if not granted(user) <= held:
        raise PermissionDenied("This user has permissions that you lack.")
    return held


async def find_permissions(
    session: AsyncSession, names: Sequence[str], field: str = "permissions"
) -> list[Permission]:
    """The permissions with these names, in order; Invalid, with each position of an unknown one."""
    stored = await session.scalars(select(Permission).order_by(Permission.name))
    found = {permission.name: permission for permission in stored}
    unknown = [
        FieldError(["body", field, str(position)], f"Unknown permission: {name}.", "unknown")
        for position, name in enumerate(names)
        if name not in found
    ]
    if unknown:
        raise Invalid(unknown)
    return [permission for name, permission in found.items() if name in names]


async def set_permissions(
    session: AsyncSession,
    user: User,
    permissions: list[Permission],
    caller: AuthContext | None = None,
) -> None:
    needed, before = needed_from(user), granted(user)
    user.permissions = permissions
    await session.flush()
    await require_holders(session, needed)
    after = granted(user)
    changes = {"granted": sorted(after - before), "revoked": sorted(before - after)}
    if after != before:
        await audit.record(session, caller, "grant", audit.target_user(user), **changes)
        fields = {"event": "grant", "target_user_id": user.id, **changes}
        logger.info("Permissions changed", extra=fields)


async def change_permissions(
    session: AsyncSession,
    settings: Settings,
    user: User,
    permissions: list[Permission],
    caller: AuthContext | None = None,
) -> None:
    """As `set_permissions`, and tell the user."""
    before = granted(user)
    await set_permissions(session, user, permissions, caller)
    if (after := granted(user)) != before:
        by = caller.username if caller else "An administrator"
        names = ", ".join(sorted(after)) or "none"
        await notify(session, settings, user, "permissions_changed", by=by, permissions=names)


async def require_holders(session: AsyncSession, needed: frozenset[str]) -> None:
    """Call this after a change to a user, with what was needed from them before it.

    Conflict if no active user holds one of these permissions any more.
    """
    if not needed:
        return
    held = user_permissions.c.permission_id
    holders = select(User.id).join(user_permissions, user_permissions.c.user_id == User.id)
    # A range in its order needs the index. PostgreSQL expects many users with each permission, so
    # for an equality it would read the rows of all users until it finds one.
    is_held = held.between(Permission.id, Permission.id)
    first = holders.where(is_held, User.is_active).order_by(held).limit(1).scalar_subquery()
    query = select(Permission.name).where(Permission.name.in_(needed), first.is_not(None))
    if lost := needed - {*await session.scalars(query)}:
        raise Conflict(f"This is the last active user who holds {' and '.join(sorted(lost))}.")
