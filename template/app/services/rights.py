"""Who may do what to whom. Nobody hands out what they lack, or reaches above themselves."""

import logging
from collections.abc import Sequence

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.errors import Conflict, Fault, Invalid, NotFound
from app.models.user import Permission, User, user_permissions
from app.permissions import ADMINISTRATION, PERMISSIONS, PermissionName
from app.schemas.user import fold_name
from app.security import PermissionDenied
from app.services.identity import Identity

logger = logging.getLogger(__name__)

HELD = (
    select(Permission.__table__.c.name)
    .join(user_permissions, user_permissions.c.permission_id == Permission.__table__.c.id)
    .join(User.__table__, User.__table__.c.id == user_permissions.c.user_id)
    .where(User.__table__.c.id == bindparam("user_id"), User.__table__.c.is_active)
)


def held_by(user: User) -> frozenset[str]:
    return frozenset(permission.name for permission in user.permissions)


def is_administrator(user: User) -> bool:
    return user.is_active and ADMINISTRATION in held_by(user)


async def lock_rights(session: AsyncSession) -> None:
    """One change of rights at a time, or two administrators could remove each other at once.

    A transaction that writes has SQLite's only lock already; PostgreSQL locks this row.
    """
    if session.get_bind().dialect.name != "sqlite":
        query = select(Permission.id).where(Permission.name == ADMINISTRATION).with_for_update()
        await session.execute(query)


async def load_user(session: AsyncSession, user_id: int) -> User:
    query = select(User).where(User.id == user_id).options(selectinload(User.permissions))
    user = await session.scalar(query.execution_options(populate_existing=True))
    if user is None:
        raise NotFound(f"There is no user {user_id}.")
    return user


async def confirm(session: AsyncSession, actor: Identity, needed: PermissionName) -> frozenset[str]:
    """Look again, before a change, at what an actor may do; rights are locked from here on.

    Since the request was let in they can have changed: PermissionDenied without what is needed.
    Returns what they hold.
    """
    await lock_rights(session)
    held = frozenset(await session.scalars(HELD, {"user_id": actor.user_id}))
    if needed not in held:
        raise PermissionDenied
    return held


async def reach(session: AsyncSession, held: frozenset[str]) -> frozenset[str]:
    """Whose accounts are in reach: those that hold nothing else than this.

    That is what is held, and for who holds all that the code declares, all that there is.
    Otherwise a permission that somebody makes for themselves would put them above everyone.
    """
    if held >= PERMISSIONS.keys():
        held |= frozenset(await session.scalars(select(Permission.name)))
    return held


async def load_user_within(session: AsyncSession, held: frozenset[str], user_id: int) -> User:
    """The user, with permissions; PermissionDenied if who holds these does not reach them."""
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
) -> None:
    held = await confirm(session, actor, "permissions:write")
    user = await load_user_within(session, held, user_id)
    held = await reach(session, held)
    permissions = await find_permissions(session, names)
    if not frozenset(names) - held_by(user) <= held:
        raise PermissionDenied("You can only grant what you hold yourself.")
    await assign(session, user, permissions)


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
