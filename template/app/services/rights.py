"""Who may do what to whom. Nobody hands out what they lack, or reaches above themselves."""

import logging
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.errors import Conflict, Fault, Invalid, NotFound
from app.models.user import Permission, User
from app.permissions import ADMINISTRATION, PERMISSIONS, PermissionName
from app.schemas.user import UserRead, fold_name
from app.security import PermissionDenied
from app.services.identity import Identity, confirm_session, locks_rows
from app.services.user_queries import read_user

logger = logging.getLogger(__name__)


def held_by(user: User) -> frozenset[str]:
    return frozenset(permission.name for permission in user.permissions)


def is_administrator(user: User) -> bool:
    return user.is_active and ADMINISTRATION in held_by(user)


async def lock_rights(session: AsyncSession) -> None:
    """One change of rights at a time, or two administrators could remove each other at once."""
    if locks_rows(session):
        query = select(Permission.id).where(Permission.name == ADMINISTRATION).with_for_update()
        await session.execute(query)


async def load_user(session: AsyncSession, user_id: int) -> User:
    query = select(User).where(User.id == user_id).options(selectinload(User.permissions))
    user = await session.scalar(query.execution_options(populate_existing=True))
    if user is None:
        raise NotFound(f"There is no user {user_id}.")
    return user


async def confirm(
    session: AsyncSession, actor: Identity, needed: PermissionName, target: int | None = None
) -> frozenset[str]:
    """Look again, before a change, at what an actor may do; rights are locked from here on.

    They can have changed since the request was let in: Unauthenticated if the session has ended,
    PermissionDenied without what is needed. Returns what they hold.
    """
    await lock_rights(session)
    held = await confirm_session(session, actor, target)
    if needed not in held:
        raise PermissionDenied
    return held


async def reach(session: AsyncSession, held: frozenset[str]) -> frozenset[str]:
    """The permissions that an actor who holds these may manage, and so the accounts with no others.

    Normally those that they hold themselves. Whoever holds every declared permission may manage all
    that there are: otherwise somebody could make a permission of their own, hold it alone, and be
    out of every administrator's reach.
    """
    if held >= PERMISSIONS.keys():
        held |= frozenset(await session.scalars(select(Permission.name)))
    return held


async def load_user_within(session: AsyncSession, held: frozenset[str], user_id: int) -> User:
    """The user, with permissions; PermissionDenied if one of them is outside an actor's reach."""
    user = await load_user(session, user_id)
    if not held_by(user) <= await reach(session, held):
        raise PermissionDenied("This account has permissions that you lack.")
    return user


async def keep_an_administrator(session: AsyncSession) -> None:
    """After a change to an administrator: Conflict if none is left."""
    query = (
        select(User.id)
        .join(User.permissions)
        .where(User.is_active, Permission.name == ADMINISTRATION)
        .limit(1)
    )
    if await session.scalar(query) is None:
        raise Conflict(f"This is the last active account that holds {ADMINISTRATION}.")


async def replace_permissions(
    session: AsyncSession, actor: Identity, user_id: int, names: Sequence[str]
) -> UserRead:
    held = await confirm(session, actor, "permissions:write", user_id)
    user = await load_user_within(session, held, user_id)
    held = await reach(session, held)
    permissions = await find_permissions(session, names)
    if not frozenset(names) - held_by(user) <= held:
        raise PermissionDenied("You can only grant what you hold yourself.")
    await assign(session, user, permissions)
    return await read_user(session, user_id)


async def find_permissions(session: AsyncSession, names: Sequence[str]) -> list[Permission]:
    """Those of these names; Invalid, saying which, if there is no such permission."""
    found = {p.name: p for p in await session.scalars(select(Permission))}
    unknown = [
        Fault(["body", "permissions", str(place)], "There is no such permission.", "unknown")
        for place, name in enumerate(names)
        if name not in found
    ]
    if unknown:
        raise Invalid(unknown)
    return [found[name] for name in dict.fromkeys(names)]


async def assign(session: AsyncSession, user: User, permissions: list[Permission]) -> None:
    was_administrator = is_administrator(user)
    before = held_by(user)
    user.permissions = permissions
    await session.flush()
    if was_administrator:
        await keep_an_administrator(session)
    changes = {
        "granted": sorted(held_by(user) - before),
        "revoked": sorted(before - held_by(user)),
    }
    logger.info("Permissions set", extra={"event": "grant", "subject": user.id, **changes})


async def load_by_username(session: AsyncSession, username: str) -> User:
    user_id = await session.scalar(select(User.id).where(User.username == fold_name(username)))
    if user_id is None:
        raise NotFound(f"There is no user {username}.")
    return await load_user(session, user_id)
