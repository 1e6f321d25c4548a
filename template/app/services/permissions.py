"""The permissions that there are: those of the code, and those that an owner adds."""

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Conflict, NotFound
from app.models.user import Permission, user_permissions
from app.permissions import PERMISSIONS
from app.schemas.auth import PermissionCreate, PermissionUpdate
from app.services.identity import Identity


async def create_permission(
    session: AsyncSession, actor: Identity, data: PermissionCreate
) -> Permission:
    """A new permission. Its creator holds it: otherwise nobody could ever grant it."""
    refuse_declared(data.name)
    permission = Permission(name=data.name, description=data.description)
    session.add(permission)
    await session.flush()
    link = {"user_id": actor.user_id, "permission_id": permission.id}
    await session.execute(insert(user_permissions).values(link))
    return permission


async def update_permission(
    session: AsyncSession, permission_id: int, data: PermissionUpdate
) -> Permission:
    permission = await load(session, permission_id)
    if data.name is not None and data.name != permission.name:
        refuse_declared(permission.name)
        refuse_declared(data.name)
        permission.name = data.name
    if data.description is not None:
        permission.description = data.description
    await session.flush()
    return permission


async def delete_permission(session: AsyncSession, permission_id: int) -> None:
    permission = await load(session, permission_id)
    refuse_declared(permission.name)
    await session.delete(permission)


def refuse_declared(name: str) -> None:
    """Also one that has no row yet: whoever makes a permission holds it."""
    if name in PERMISSIONS:
        raise Conflict(
            "The code declares this permission: it can't be made, renamed or deleted here."
        )


async def load(session: AsyncSession, permission_id: int) -> Permission:
    permission = await session.get(Permission, permission_id)
    if permission is None:
        raise NotFound(f"There is no permission {permission_id}.")
    return permission
