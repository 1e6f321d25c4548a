"""Users and their permissions."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from app.auth import account, users
from app.auth.dependencies import (
    AuthContext,
    ClientDep,
    CurrentUser,
    DatabaseDep,
    RecentLogin,
    SessionDep,
    SettingsDep,
    require,
)
from app.auth.schemas import OwnUserUpdate, UserFilters, UserPermissions, normalize_email
from app.auth.throttle import TooManyAttempts
from app.core.errors import Conflict
from app.core.openapi import error_responses
from app.core.pagination import Page, PageDep, paginate
from app.core.routing import IdPath, Router
from app.core.search import search
from app.models.user import Permission, User
from app.permissions import PermissionName
from app.schemas.user import PermissionRead, UserCreate, UserRead, UserUpdate

router = Router(prefix="/users", tags=["users"], max_body_size=128 * 1024)
permissions_router = Router(prefix="/permissions", tags=["permissions"])

UserAdmin = Annotated[AuthContext, require("users:write", recent_login=True)]
PermissionAdmin = Annotated[AuthContext, require("permissions:write", recent_login=True)]


@router.get("/me", response_model=UserRead)
async def read_own_user(user: CurrentUser, session: SessionDep) -> User:
    """Show who you are and what you may do."""
    return await users.load_user(session, user_id=user.user_id)


@router.patch("/me", response_model=UserRead, responses=error_responses(TooManyAttempts))
async def update_own_user(
    data: OwnUserUpdate,
    user: RecentLogin,
    client: ClientDep,
    database: DatabaseDep,
    session: SessionDep,
    settings: SettingsDep,
) -> User:
    """Change your username or email address. Needs a recent login.

    Unless REGISTRATION is closed, a new address needs a link: `POST /api/v1/auth/email/change`.
    """
    return await account.update_own_user(database, session, settings, user, data, client.address)


@router.get("", response_model=Page[UserRead], dependencies=[require("users:read")])
async def list_users(
    page: PageDep, session: SessionDep, filters: Annotated[UserFilters, Query()]
) -> Page[User]:
    """List users in the order of their ids; `order=-id` lists the latest first."""
    statement = select(User).options(selectinload(User.permissions))
    if filters.q:
        columns = [User.username, User.email]
        return await search(session, statement, columns, filters.q, page, filters)
    return await paginate(session, statement, page, order=filters.order)


@router.post(
    "",
    response_model=UserRead,
    status_code=HTTPStatus.CREATED,
    responses=error_responses(TooManyAttempts),
)
async def create_user(
    data: UserCreate,
    user: UserAdmin,
    request: Request,
    response: Response,
    database: DatabaseDep,
    session: SessionDep,
    settings: SettingsDep,
) -> User:
    """Create a user without permissions. Needs a recent login.

    With REGISTRATION, leave out the password: the user gets an invitation by email instead. You can
    send 30 invitations in five minutes.
    """
    if settings.registration != "closed":
        await users.count_invitation(database, user.user_id, normalize_email(data.email))
    created = await users.create_user(session, settings, user, data)
    response.headers["Location"] = f"{request.scope['path']}/{created.id}"
    return created


@router.get("/{user_id:id}", response_model=UserRead, dependencies=[require("users:read")])
async def read_user(user_id: IdPath, session: SessionDep) -> User:
    return await users.load_user(session, user_id=user_id)


@router.patch("/{user_id:id}", response_model=UserRead)
async def update_user(
    user_id: IdPath,
    data: UserUpdate,
    user: UserAdmin,
    database: DatabaseDep,
    session: SessionDep,
    settings: SettingsDep,
) -> User:
    """Change a user who has no permission that you lack. Needs a recent login.

    A new password logs the user out everywhere, and so does deactivation. Your own address needs
    `PATCH /api/v1/users/me` or a link.
    """
    return await users.update_user(database, session, settings, user, user_id, data)


@router.delete(
    "/{user_id:id}", status_code=HTTPStatus.NO_CONTENT, responses=error_responses(Conflict)
)
async def delete_user(user_id: IdPath, user: UserAdmin, session: SessionDep) -> None:
    """Delete a user who has no permission that you lack. Needs a recent login."""
    await users.delete_user(session, user, user_id)


@router.delete("/{user_id:id}/sessions", status_code=HTTPStatus.NO_CONTENT)
async def revoke_login_sessions(user_id: IdPath, user: UserAdmin, session: SessionDep) -> None:
    """Log a user out everywhere. Needs a recent login."""
    await users.revoke_login_sessions(session, user, user_id)


@router.put("/{user_id:id}/permissions", response_model=UserRead)
async def replace_permissions(
    user_id: IdPath,
    data: UserPermissions,
    user: PermissionAdmin,
    session: SessionDep,
    settings: SettingsDep,
) -> User:
    """Replace all permissions of a user. You can only grant those that you hold.

    Needs a recent login.
    """
    return await users.replace_permissions(session, settings, user, user_id, data.permissions)


@permissions_router.get(
    "", response_model=Page[PermissionRead], dependencies=[require("permissions:read")]
)
async def list_permissions(page: PageDep, session: SessionDep) -> Page[Permission]:
    """List the permissions that users can hold."""
    declared = Permission.name.in_([name.value for name in PermissionName])
    return await paginate(session, select(Permission).where(declared), page)
