"""Logging in and out, and the login sessions and the password of the caller."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Form

from app.auth import service, sessions
from app.auth.dependencies import (
    FROM_THIS_SITE,
    ClientDep,
    DatabaseDep,
    LoggedInUser,
    RecentLogin,
    SentByOtherSite,
    SessionDep,
    SettingsDep,
)
from app.auth.mail_sender import sending_mails
from app.auth.schemas import LoginForm, LoginSessionRead, PasswordChange, TokenRead
from app.auth.service import InvalidCredentials, WrongCurrentPassword
from app.auth.throttle import TooManyAttempts
from app.core.openapi import error_responses
from app.core.routing import IdPath, Router

# Small, since the body of a login is read before the user is known.
router = Router(prefix="/auth", tags=["auth"], max_body_size=16 * 1024, lifespan=sending_mails)


@router.post(
    "/login",
    responses=error_responses(InvalidCredentials, SentByOtherSite, TooManyAttempts),
    dependencies=[FROM_THIS_SITE],
    form_limits={"max_files": 0, "max_fields": 10},
)
async def log_in(
    form: Annotated[LoginForm, Form()],
    client: ClientDep,
    database: DatabaseDep,
    settings: SettingsDep,
) -> TokenRead:
    """Get a token, to be sent as `Authorization: Bearer <token>`.

    A request that has such a header already also ends the session of the old token.
    """
    return await service.log_in(database, settings, form.username, form.password, client)


@router.post("/logout", status_code=HTTPStatus.NO_CONTENT)
async def log_out(user: LoggedInUser, session: SessionDep) -> None:
    """End the current session."""
    # Another request may have ended it in the meantime, which is fine.
    await sessions.revoke(session, user, user.session_id)


@router.get("/sessions")
async def list_login_sessions(
    user: LoggedInUser, session: SessionDep, settings: SettingsDep
) -> list[LoginSessionRead]:
    """List the devices on which you are logged in."""
    found = await sessions.list_login_sessions(session, settings, user.user_id)
    return [
        LoginSessionRead(
            id=row.id,
            created_at=row.created_at,
            last_used_at=row.last_used_at,
            address=row.address,
            user_agent=row.user_agent,
            is_current=row.id == user.session_id,
        )
        for row in found
    ]


@router.delete("/sessions/{session_id}", status_code=HTTPStatus.NO_CONTENT)
async def revoke_login_session(session_id: IdPath, user: RecentLogin, session: SessionDep) -> None:
    """Log out on one device. Needs a recent login."""
    await sessions.revoke_own(session, user, session_id)


@router.delete("/sessions", status_code=HTTPStatus.NO_CONTENT)
async def revoke_other_login_sessions(user: RecentLogin, session: SessionDep) -> None:
    """Log out everywhere else. Needs a recent login."""
    await sessions.revoke_others(session, user)


@router.post("/password", responses=error_responses(WrongCurrentPassword, TooManyAttempts))
async def change_password(
    data: PasswordChange,
    user: LoggedInUser,
    client: ClientDep,
    database: DatabaseDep,
    settings: SettingsDep,
) -> TokenRead:
    """Change your password. Revokes all sessions, including this one, and returns a new token."""
    return await service.change_password(
        database, settings, user, data.current_password, data.new_password, client
    )
