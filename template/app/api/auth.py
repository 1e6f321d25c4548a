"""Who is asking and whether they may, as dependencies of a route."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import BackgroundTasks, Depends, Request, params
from fastapi.security import OAuth2PasswordBearer

from app import logs
from app.api.deps import SessionDep, SettingsDep
from app.db.session import Database
from app.permissions import PERMISSIONS, PermissionName
from app.security import LoginTooOld, PermissionDenied, Unauthenticated, is_token
from app.services.identity import Identity, identify, needs_touch, touch
from app.services.sessions import Client
from app.settings import Settings

bearer = OAuth2PasswordBearer(
    "/api/v1/auth/login",
    scheme_name="token",
    scopes={str(name): text for name, text in PERMISSIONS.items()},
    auto_error=False,
)


async def get_identity(
    request: Request,
    token: Annotated[str | None, Depends(bearer)],
    session: SessionDep,
    after_response: BackgroundTasks,
) -> Identity:
    """The user of the token. For a write, looked up through a reader: it takes no lock yet."""
    # A route can ask twice, by `CurrentUser` and by `require`.
    known: Identity | None = getattr(request.state, "identity", None)
    if known is not None:
        return known
    if not token or not is_token(token) or len(request.headers.getlist("Authorization")) > 1:
        raise Unauthenticated
    # Not dependencies, as elsewhere: each of those costs time, and this is part of every request.
    database: Database = request.app.state.database
    settings: Settings = request.app.state.settings
    if request.method == "GET":
        identity = await identify(session, settings, token)
    else:
        async with database.readers() as reader:
            identity = await identify(reader, settings, token)
    if identity is None:
        raise Unauthenticated
    request.state.identity = identity
    logs.user_id.set(identity.user_id)
    if needs_touch(identity):
        after_response.add_task(touch, database, identity)
    return identity


CurrentUser = Annotated[Identity, Depends(get_identity)]


async def get_recent_identity(identity: CurrentUser, settings: SettingsDep) -> Identity:
    age = abs(datetime.now(UTC) - identity.logged_in_at)
    if age > timedelta(minutes=settings.recent_login_minutes):
        raise LoginTooOld
    return identity


# For what is sensitive: a stolen token alone is not to take an account over.
RecentLogin = Annotated[Identity, Depends(get_recent_identity)]


def require(permission: PermissionName, *, recent_login: bool = False) -> params.Security:
    """A dependency on a permission: `dependencies=[require("users:read")]`.

    To know who asks: `actor: Annotated[Identity, require("users:read")]`. The name also goes into
    the OpenAPI schema, as a scope of the operation.
    """
    if permission not in PERMISSIONS:
        raise ValueError(f"{permission} is not declared in app/permissions.py")

    asker = get_recent_identity if recent_login else get_identity

    async def check(identity: Annotated[Identity, Depends(asker)]) -> Identity:
        if permission not in identity.permissions:
            raise PermissionDenied(f"This needs the permission {permission}.")
        return identity

    return params.Security(check, scopes=[permission])


async def get_client(request: Request) -> Client:
    address = request.client.host if request.client else "unknown"
    return Client(address, request.headers.get("User-Agent", ""))


ClientDep = Annotated[Client, Depends(get_client)]
