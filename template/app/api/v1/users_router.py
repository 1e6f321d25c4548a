from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BeforeValidator, Field

from app.api.auth import ClientDep, CurrentUser, RecentLogin, require
from app.api.deps import DatabaseDep, IdPath, SessionDep, SettingsDep
from app.api.openapi import answers
from app.api.pagination import Page, PagingDep, Slice
from app.api.strict_json import StrictRoute
from app.errors import Conflict, NotFound
from app.schemas.auth import AccountUpdate, UserPermissions
from app.schemas.user import Line, UserCreate, UserRead, UserUpdate, fold_name
from app.services import rights, user_queries, users
from app.services.identity import Identity
from app.services.throttle import TooManyAttempts

router = APIRouter(
    prefix="/users", tags=["users"], route_class=StrictRoute, max_body_size=128 * 1024
)

MayWrite = Annotated[Identity, require("users:write")]
MayWriteRecently = Annotated[Identity, require("users:write", recent_login=True)]
MayGrantRecently = Annotated[Identity, require("permissions:write", recent_login=True)]

# Part of a username or an e-mail, spelt as those are stored.
Search = Annotated[Line, Field(max_length=100), BeforeValidator(fold_name)]


@router.get("/me")
async def read_account(identity: CurrentUser, session: SessionDep) -> UserRead:
    return await user_queries.read_user(session, identity.user_id)


@router.patch("/me", responses=answers(Conflict, TooManyAttempts))
async def update_account(
    data: AccountUpdate,
    identity: RecentLogin,
    client: ClientDep,
    database: DatabaseDep,
    session: SessionDep,
) -> UserRead:
    return await users.update_account(database, session, identity, data, client)


@router.get("", response_model=Page[UserRead], dependencies=[require("users:read")])
async def list_users(
    paging: PagingDep,
    session: SessionDep,
    q: Annotated[Search | None, Query(description="Part of a username or an e-mail.")] = None,
) -> Slice[UserRead]:
    found = await user_queries.list_users(session, after=paging.after, count=paging.rows, search=q)
    return paging.slice(found)


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    responses=answers(Conflict),
)
async def create_user(
    data: UserCreate,
    actor: MayWrite,
    request: Request,
    response: Response,
    session: SessionDep,
    settings: SettingsDep,
) -> UserRead:
    """A new account, without permissions."""
    user = await users.create_user(session, settings, actor, data)
    response.headers["Location"] = f"{request.scope['path']}/{user.id}"
    return user


@router.get("/{user_id:id}", responses=answers(NotFound), dependencies=[require("users:read")])
async def read_user(user_id: IdPath, session: SessionDep) -> UserRead:
    return await user_queries.read_user(session, user_id)


@router.patch("/{user_id:id}", responses=answers(NotFound, Conflict))
async def update_user(
    user_id: IdPath,
    data: UserUpdate,
    actor: MayWriteRecently,
    database: DatabaseDep,
    session: SessionDep,
    settings: SettingsDep,
) -> UserRead:
    """Change an account that holds no permission which you lack.

    A new password ends every session of the user, and so does deactivation.
    """
    return await users.update_user(database, session, settings, actor, user_id, data)


@router.delete(
    "/{user_id:id}", status_code=HTTPStatus.NO_CONTENT, responses=answers(NotFound, Conflict)
)
async def delete_user(user_id: IdPath, actor: MayWriteRecently, session: SessionDep) -> None:
    await users.delete_user(session, actor, user_id)


@router.delete(
    "/{user_id:id}/sessions", status_code=HTTPStatus.NO_CONTENT, responses=answers(NotFound)
)
async def revoke_sessions(user_id: IdPath, actor: MayWrite, session: SessionDep) -> None:
    """Log somebody out everywhere."""
    await users.log_out_user(session, actor, user_id)


@router.put("/{user_id:id}/permissions", responses=answers(NotFound, Conflict))
async def replace_permissions(
    user_id: IdPath,
    data: UserPermissions,
    actor: MayGrantRecently,
    session: SessionDep,
) -> UserRead:
    """All permissions of an account at once; you can only grant what you hold."""
    return await rights.replace_permissions(session, actor, user_id, data.permissions)
