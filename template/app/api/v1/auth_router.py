from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.security import OAuth2PasswordRequestForm

from app.api.auth import ClientDep, CurrentUser
from app.api.deps import DatabaseDep, IdPath, SessionDep, SettingsDep
from app.api.openapi import answers
from app.api.strict_json import StrictRoute
from app.errors import Conflict, Fault, Invalid, NotFound
from app.schemas.auth import PasswordChange, SessionRead, TokenRead
from app.security import PermissionDenied
from app.services import login, sessions
from app.services.login import WrongCredentials
from app.services.sessions import IssuedToken
from app.services.throttle import TooManyAttempts

# Read before anyone is known.
router = APIRouter(prefix="/auth", tags=["auth"], route_class=StrictRoute, max_body_size=16 * 1024)


@router.post(
    "/login",
    response_model=TokenRead,
    responses=answers(WrongCredentials, TooManyAttempts),
    form_limits={"max_files": 0, "max_fields": 10},
)
async def log_in(
    form: Annotated[OAuth2PasswordRequestForm, Depends()],
    client: ClientDep,
    database: DatabaseDep,
    settings: SettingsDep,
) -> IssuedToken:
    """A token for `Authorization: Bearer`; `username` may be an e-mail address."""
    if form.scopes:
        reason = "A token may do what its user may: leave scope empty."
        raise Invalid([Fault(["body", "scope"], reason, "scope_not_empty")])
    return await login.log_in(database, settings, form.username, form.password, client)


@router.post("/logout", status_code=HTTPStatus.NO_CONTENT)
async def log_out(identity: CurrentUser, session: SessionDep) -> None:
    # It may have ended meanwhile, which is as well.
    await sessions.revoke(session, identity.user_id, identity.session_id)


@router.get("/sessions")
async def list_sessions(
    identity: CurrentUser, session: SessionDep, settings: SettingsDep
) -> Sequence[SessionRead]:
    """Where you are logged in."""
    found = await sessions.list_sessions(session, settings, identity.user_id)
    return [
        SessionRead(
            id=row.id,
            created_at=row.created_at,
            last_used_at=row.last_used_at,
            address=row.address,
            user_agent=row.user_agent,
            is_current=row.id == identity.session_id,
        )
        for row in found
    ]


@router.delete(
    "/sessions/{session_id:id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=answers(NotFound),
)
async def revoke_session(session_id: IdPath, identity: CurrentUser, session: SessionDep) -> None:
    await sessions.revoke_own(session, identity, session_id)


@router.delete("/sessions", status_code=HTTPStatus.NO_CONTENT)
async def revoke_other_sessions(identity: CurrentUser, session: SessionDep) -> None:
    """Log out everywhere but here."""
    await sessions.revoke_others(session, identity)


@router.post(
    "/password",
    response_model=TokenRead,
    responses=answers(PermissionDenied, Conflict, TooManyAttempts),
)
async def change_password(
    data: PasswordChange,
    identity: CurrentUser,
    client: ClientDep,
    database: DatabaseDep,
    settings: SettingsDep,
) -> IssuedToken:
    """A new password and a new token; every session there was ends, this one too."""
    return await login.change_password(
        database, settings, identity, data.current_password, data.new_password, client
    )
