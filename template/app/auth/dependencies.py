"""What a route can ask for in its signature: who sent the request, and whether they may."""

import difflib
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated

from fastapi import BackgroundTasks, Depends, Request, params
from fastapi.requests import HTTPConnection
from fastapi.security import OAuth2PasswordBearer

from app.auth.authentication import AuthContext as AuthContext
from app.auth.authentication import Client, authenticate, needs_touch, touch
from app.core.database import READ_METHODS, Database
from app.core.database import DatabaseDep as DatabaseDep
from app.core.errors import PermissionDenied, Unauthenticated
from app.core.logging import user_id
from app.core.routing import get_settings
from app.db.session import SessionDep as SessionDep
from app.permissions import PermissionName
from app.settings import Settings

SettingsDep = Annotated[Settings, Depends(get_settings)]


class LoginTooOld(Unauthenticated):
    """Step-up authentication (RFC 9470): the session is valid, but not for this action."""

    detail = "This action needs a recent login. Log in again."
    headers = MappingProxyType(
        {"WWW-Authenticate": 'Bearer error="insufficient_user_authentication"'}
    )


def _read_bearer(header: str) -> str | None:
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class _BearerToken(OAuth2PasswordBearer):
    """Reads the token of a request or a WebSocket. FastAPI's own class only reads requests."""

    def __init__(self, scheme_name: str) -> None:
        scopes = {name.value: name.description for name in PermissionName}
        super().__init__("/api/v1/auth/login", scheme_name=scheme_name, scopes=scopes)

    async def __call__(self, connection: HTTPConnection) -> str | None:
        """None without an Authorization header; Unauthenticated if there is no token in it."""
        headers = connection.headers.getlist("Authorization")
        if not headers:
            return None
        token = _read_bearer(headers[0])
        if len(headers) > 1 or token is None:
            raise Unauthenticated
        return token


_token = _BearerToken("token")
# FastAPI cannot document a login that is optional. This mark tells app/core/openapi.py to do so.
_optional_token = _BearerToken("optional token")
_optional_token.model = _optional_token.model.model_copy(update={"x-optional": "token"})


async def get_auth_context(
    connection: HTTPConnection,
    token: Annotated[str | None, Depends(_token)],
    session: SessionDep,
    after_response: BackgroundTasks,
) -> AuthContext:
    if token is None:
        raise Unauthenticated
    return await _authenticate(connection, token, session, after_response)


async def get_optional_auth_context(
    connection: HTTPConnection,
    token: Annotated[str | None, Depends(_optional_token)],
    session: SessionDep,
    after_response: BackgroundTasks,
) -> AuthContext | None:
    if token is None:
        return None
    return await _authenticate(connection, token, session, after_response)


async def _authenticate(
    connection: HTTPConnection, token: str, session: SessionDep, after_response: BackgroundTasks
) -> AuthContext:
    # FastAPI runs this twice for a route with both `CurrentUser` and `require`.
    user: AuthContext | None = getattr(connection.state, "auth_context", None)
    if user is not None:
        return user
    # These are dependencies elsewhere. Here that would slow down nearly every request.
    database: Database = connection.app.state.database
    settings: Settings = connection.app.state.settings
    if connection.scope.get("method") == "GET":
        user = await authenticate(session, settings, token)
    else:
        # `session` would take the write lock before the request is known to be allowed. `aclosing`
        # has the same reason as in `get_session`.
        async with aclosing(database.readers()) as reader, reader.begin():
            user = await authenticate(reader, settings, token)
    if user is None:
        raise Unauthenticated
    connection.state.auth_context = user
    user_id.set(user.user_id)
    if needs_touch(user):
        if connection.scope["type"] == "websocket":
            # FastAPI runs no background tasks there.
            await touch(database, user)
        else:
            after_response.add_task(touch, database, user)
    return user


CurrentUser = Annotated[AuthContext, Depends(get_auth_context)]
# For a route that also works without a login: None without a token, but 401 with an invalid one.
OptionalUser = Annotated[AuthContext | None, Depends(get_optional_auth_context)]


async def get_logged_in_user(user: CurrentUser) -> AuthContext:
    if user.session_id is None:
        raise PermissionDenied("An API key cannot do this. Log in.")
    return user


# For what an API key must not do: `RecentLogin` excludes keys, too.
LoggedInUser = Annotated[AuthContext, Depends(get_logged_in_user)]


async def get_recent_auth_context(user: CurrentUser, settings: SettingsDep) -> AuthContext:
    age = abs(datetime.now(UTC) - user.logged_in_at)
    if age > timedelta(minutes=settings.recent_login_minutes):
        raise LoginTooOld
    return user


# For sensitive operations: a stolen token must not be enough to take over an account.
RecentLogin = Annotated[AuthContext, Depends(get_recent_auth_context)]


def require(permission: str, *, recent_login: bool = False) -> params.Security:
    """A dependency on a permission: `dependencies=[require("users:read")]`.

    To know the user as well: `user: Annotated[AuthContext, require("users:read")]`.
    The OpenAPI schema shows the permission as a scope.
    """
    if permission not in {*PermissionName}:
        nearest = difflib.get_close_matches(permission, PermissionName, n=1)
        hint = f"; did you mean {nearest[0]!s}?" if nearest else ""
        raise ValueError(f"{permission!r} is not declared in app/permissions.py{hint}")

    get_user = get_recent_auth_context if recent_login else get_auth_context

    async def check(user: Annotated[AuthContext, Depends(get_user)]) -> AuthContext:
        if permission not in user.permissions:
            raise PermissionDenied(f"This needs the permission {permission}.")
        return user

    return params.Security(check, scopes=[str(permission)])


def require_owner(user: AuthContext, owner_id: int, permission: str) -> None:
    """Reject a change to what belongs to another user, unless the caller holds the permission."""
    if owner_id != user.user_id and permission not in user.permissions:
        reason = f"This belongs to another user. Changing it needs the permission {permission}."
        raise PermissionDenied(reason)


async def get_client(connection: HTTPConnection) -> Client:
    address = connection.client.host if connection.client else "unknown"
    replaced = _read_bearer(connection.headers.get("Authorization", ""))
    return Client(address, connection.headers.get("User-Agent", ""), replaced)


ClientDep = Annotated[Client, Depends(get_client)]


class SentByOtherSite(PermissionDenied):
    detail = "A page of another site sent this. If it is yours, list it in CORS_ORIGINS."


async def reject_other_sites(request: Request, settings: SettingsDep) -> None:
    """Reject a form that a page of another site sends: browsers do not ask for permission first.

    Such a page could use up the attempts of its visitors, in networks that their accounts know.
    Only browsers send this header, and no page can change it.
    """
    if request.method in READ_METHODS or request.headers.get("Sec-Fetch-Site") != "cross-site":
        return
    if request.headers.get("Origin") not in settings.cors_origins:
        raise SentByOtherSite


FROM_THIS_SITE = Depends(reject_other_sites)
