"""Who may change which user.

Users cannot grant permissions that they lack, or change users who hold more than they do.
"""

import logging
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.sessions import AuthContext, reauthenticate
from app.core.database import locks_rows
from app.core.errors import Conflict, FieldError, Invalid, PermissionDenied
from app.models.user import Permission, User
from app.permissions import PermissionName

logger = logging.getLogger(__name__)

# Holders of this permission can grant the others, so its last active holder must stay.
_ADMINISTRATION = PermissionName.PERMISSIONS_WRITE


def granted(user: User) -> frozenset[str]:
    return frozenset(permission.name for permission in user.permissions)


def is_administrator(user: User) -> bool:
    return user.is_active and _ADMINISTRATION in granted(user)


async def lock_permissions(session: AsyncSession) -> None:
    """One change at a time: otherwise two administrators could remove each other at once."""
    if locks_rows(session):
        query = select(Permission.id).where(Permission.name == _ADMINISTRATION.value)
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


async def manageable(session: AsyncSession, held: frozenset[str]) -> frozenset[str]:
    """The permissions that a holder of `held` can grant, and whose holders they can change.

    These are their own. Holders of every declared permission can also manage those that the code
    no longer declares: otherwise no one could manage the users who still have one.
    """
    if held >= {*PermissionName}:
        held |= frozenset(await session.scalars(select(Permission.name)))
    return held


async def check_manageable(session: AsyncSession, held: frozenset[str], user: User) -> None:
    if not granted(user) <= await manageable(session, held):
        raise PermissionDenied("This user has permissions that you lack.")


async def find_permissions(session: AsyncSession, names: Sequence[str]) -> list[Permission]:
    """The permissions with these names; Invalid, with the position of each unknown one."""
    found = {p.name: p for p in await session.scalars(select(Permission))}
    unknown = [
        FieldError(["body", "permissions", str(position)], "Unknown permission.", "unknown")
        for position, name in enumerate(names)
        if name not in found
    ]
    if unknown:
        raise Invalid(unknown)
    return [found[name] for name in dict.fromkeys(names)]


async def replace_permissions(
    session: AsyncSession, held: frozenset[str], user: User, names: Sequence[str]
) -> None:
    """Replace the permissions of a user, on behalf of a caller who holds these."""
    permissions = await find_permissions(session, names)
    if not frozenset(names) - granted(user) <= await manageable(session, held):
        raise PermissionDenied("You can only grant permissions that you hold yourself.")
    await set_permissions(session, user, permissions)


async def set_permissions(session: AsyncSession, user: User, permissions: list[Permission]) -> None:
    was_administrator, before = is_administrator(user), granted(user)
    user.permissions = permissions
    await session.flush()
    if was_administrator:
        await require_administrator(session)
    after = granted(user)
    changes = {"granted": sorted(after - before), "revoked": sorted(before - after)}
    fields = {"event": "grant", "target_user_id": user.id, **changes}
    logger.info("Permissions changed", extra=fields)


async def require_administrator(session: AsyncSession) -> None:
    """Call this after a change to an administrator; Conflict if no other one is left."""
    query = (
        select(User.id)
        .join(User.permissions)
        .where(User.is_active, Permission.name == _ADMINISTRATION.value)
        .limit(1)
    )
    if await session.scalar(query) is None:
        raise Conflict(f"This is the last active user who holds {_ADMINISTRATION}.")
