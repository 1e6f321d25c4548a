"""Who is asking and whether they may, as dependencies of a route."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import BackgroundTasks, Depends, Request, params
from fastapi.security import OAuth2PasswordBearer

from app import logs
from app.api.deps import DatabaseDep, SessionDep, SettingsDep
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
    database: DatabaseDep,
    session: SessionDep,
    settings: SettingsDep,
    after_response: BackgroundTasks,
) -> Identity:
    """The user of the token. For a write, looked up through a reader: it takes no lock yet."""
    # A route can ask twice, by `CurrentUser` and by `require`.
    known: Identity | None = getattr(request.state, "identity", None)
    if known is not None:
        return known
    if not token or not is_token(token) or len(request.headers.getlist("Authorization")) > 1:
        raise Unauthenticated
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
    refuse_old_login(identity, settings)
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

    async def check(identity: CurrentUser, settings: SettingsDep) -> Identity:
        if permission not in identity.permissions:
            raise PermissionDenied(f"This needs the permission {permission}.")
        if recent_login:
            refuse_old_login(identity, settings)
        return identity

    return params.Security(check, scopes=[permission])


def refuse_old_login(identity: Identity, settings: Settings) -> None:
    age = abs(datetime.now(UTC) - identity.logged_in_at)
    if age > timedelta(minutes=settings.recent_login_minutes):
        raise LoginTooOld


async def get_client(request: Request) -> Client:
    address = request.client.host if request.client else "unknown"
    return Client(address, request.headers.get("User-Agent", ""))


ClientDep = Annotated[Client, Depends(get_client)]
