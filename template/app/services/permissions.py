"""The permissions that there are: those of the code, and those that an owner adds."""

import logging

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Conflict, NotFound
from app.models.user import Permission, user_permissions
from app.permissions import PERMISSIONS
from app.schemas.auth import PermissionCreate, PermissionUpdate
from app.security import PermissionDenied
from app.services import rights
from app.services.identity import Identity

logger = logging.getLogger(__name__)


async def create_permission(
    session: AsyncSession, actor: Identity, data: PermissionCreate
) -> Permission:
    """A new permission. Its creator holds it: otherwise nobody could ever grant it."""
    refuse_declared(data.name)
    await rights.confirm(session, actor, "permissions:write")
    permission = Permission(name=data.name, description=data.description)
    session.add(permission)
    await session.flush()
    link = {"user_id": actor.user_id, "permission_id": permission.id}
    await session.execute(insert(user_permissions).values(link))
    log("Permission created", "permission_created", permission)
    return permission


async def update_permission(
    session: AsyncSession, actor: Identity, permission_id: int, data: PermissionUpdate
) -> Permission:
    permission = await permission_to_change(session, actor, permission_id)
    if data.name is not None and data.name != permission.name:
        refuse_declared(permission.name)
        refuse_declared(data.name)
        permission.name = data.name
    if data.description is not None:
        permission.description = data.description
    await session.flush()
    log("Permission changed", "permission_changed", permission)
    return permission


async def delete_permission(session: AsyncSession, actor: Identity, permission_id: int) -> None:
    permission = await permission_to_change(session, actor, permission_id)
    refuse_declared(permission.name)
    await session.delete(permission)
    log("Permission deleted", "permission_deleted", permission)


def refuse_declared(name: str) -> None:
    """Also one that has no row yet: whoever makes a permission holds it."""
    if name in PERMISSIONS:
        raise Conflict(
            "The code declares this permission: it can't be made, renamed or deleted here."
        )


async def read_permission(session: AsyncSession, permission_id: int) -> Permission:
    permission = await session.get(Permission, permission_id)
    if permission is None:
        raise NotFound(f"There is no permission {permission_id}.")
    return permission


async def permission_to_change(
    session: AsyncSession, actor: Identity, permission_id: int
) -> Permission:
    """The permission, for a change; PermissionDenied if it is outside of the actor's reach.

    They have to hold it, or they could delete it, make it anew and so come to hold it. And no holder
    may be above them, since a holder would lose a right.
    """
    held = await rights.confirm(session, actor, "permissions:write")
    held = await rights.reach(session, held)
    permission = await read_permission(session, permission_id)
    if permission.name not in held:
        raise PermissionDenied("You can only change a permission that you hold yourself.")
    holders = select(user_permissions.c.user_id).where(
        user_permissions.c.permission_id == permission.id
    )
    beyond = (
        select(user_permissions.c.user_id)
        .join(Permission, Permission.id == user_permissions.c.permission_id)
        .where(user_permissions.c.user_id.in_(holders), Permission.name.not_in(held))
        .limit(1)
    )
    if await session.scalar(beyond) is not None:
        raise PermissionDenied("An account that has permissions which you lack holds it, too.")
    return permission


def log(sentence: str, event: str, permission: Permission) -> None:
    logger.info(sentence, extra={"event": event, "permission": permission.name})
