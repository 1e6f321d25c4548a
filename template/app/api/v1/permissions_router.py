from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Request, Response

from app.api.auth import require
from app.api.deps import IdPath, SessionDep
from app.api.openapi import answers
from app.api.pagination import Page, PagingDep, Slice
from app.api.strict_json import StrictRoute
from app.errors import Conflict, NotFound
from app.models.user import Permission
from app.schemas.auth import PermissionCreate, PermissionUpdate
from app.schemas.user import PermissionRead
from app.services import permissions
from app.services.identity import Identity

router = APIRouter(
    prefix="/permissions", tags=["permissions"], route_class=StrictRoute, max_body_size=16 * 1024
)

MayWriteRecently = Annotated[Identity, require("permissions:write", recent_login=True)]


@router.get("", response_model=Page[PermissionRead], dependencies=[require("permissions:read")])
async def list_permissions(paging: PagingDep, session: SessionDep) -> Slice[Permission]:
    rows = await session.scalars(paging.of(Permission))
    return paging.slice(rows.all())


@router.post(
    "",
    response_model=PermissionRead,
    status_code=HTTPStatus.CREATED,
    responses=answers(Conflict),
)
async def create_permission(
    data: PermissionCreate,
    actor: MayWriteRecently,
    request: Request,
    response: Response,
    session: SessionDep,
) -> Permission:
    """A permission for other programs; you are its first holder.

    The routes here can only require those of app/permissions.py.
    """
    permission = await permissions.create_permission(session, actor, data)
    response.headers["Location"] = f"{request.scope['path']}/{permission.id}"
    return permission


@router.get(
    "/{permission_id:id}",
    response_model=PermissionRead,
    responses=answers(NotFound),
    dependencies=[require("permissions:read")],
)
async def read_permission(permission_id: IdPath, session: SessionDep) -> Permission:
    return await permissions.read_permission(session, permission_id)


@router.patch(
    "/{permission_id:id}",
    response_model=PermissionRead,
    responses=answers(NotFound, Conflict),
)
async def update_permission(
    permission_id: IdPath, data: PermissionUpdate, actor: MayWriteRecently, session: SessionDep
) -> Permission:
    return await permissions.update_permission(session, actor, permission_id, data)


@router.delete(
    "/{permission_id:id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=answers(NotFound, Conflict),
)
async def delete_permission(
    permission_id: IdPath, actor: MayWriteRecently, session: SessionDep
) -> None:
    await permissions.delete_permission(session, actor, permission_id)
