"""What people do with their accounts through links by email."""

from http import HTTPStatus

from app.auth import account
from app.auth.dependencies import ClientDep, DatabaseDep, RecentLogin, SettingsDep
from app.auth.links import InvalidLink, LinksUnavailable
from app.auth.schemas import EmailConfirmation, LinkRequest, PasswordReset, Registration
from app.auth.throttle import TooManyAttempts
from app.core.openapi import error_responses
from app.core.routing import Router

router = Router(prefix="/auth", tags=["auth"], max_body_size=16 * 1024)


@router.post(
    "/password/forgot",
    status_code=HTTPStatus.NO_CONTENT,
    responses=error_responses(LinksUnavailable, TooManyAttempts),
)
async def forgot_password(
    data: LinkRequest, client: ClientDep, database: DatabaseDep, settings: SettingsDep
) -> None:
    """Send a link for a new password to your email address.

    The response is the same for an address that no user has. The link works once, for half an hour,
    and until you log in.
    """
    await account.request_password_reset(database, settings, data.email, client.address)


@router.post(
    "/password/reset",
    status_code=HTTPStatus.NO_CONTENT,
    responses=error_responses(InvalidLink, TooManyAttempts),
)
async def reset_password(
    data: PasswordReset, client: ClientDep, database: DatabaseDep, settings: SettingsDep
) -> None:
    """Choose a new password with the token of a link. Ends all your login sessions."""
    await account.reset_password(database, settings, data, client.address)


@router.post(
    "/register",
    status_code=HTTPStatus.NO_CONTENT,
    responses=error_responses(LinksUnavailable, TooManyAttempts),
)
async def register(
    data: LinkRequest, client: ClientDep, database: DatabaseDep, settings: SettingsDep
) -> None:
    """Send a link for a new account to your email address. Needs REGISTRATION=open.

    The response is the same for an address that has an account. The link works once, for an hour.
    """
    await account.request_registration(database, settings, data.email, client.address)


@router.post(
    "/register/complete",
    status_code=HTTPStatus.NO_CONTENT,
    responses=error_responses(InvalidLink, LinksUnavailable, TooManyAttempts),
)
async def complete_registration(
    data: Registration, client: ClientDep, database: DatabaseDep, settings: SettingsDep
) -> None:
    """Choose your username and password with the token of a link. Then you can log in."""
    await account.register(database, settings, data, client.address)


@router.post(
    "/email/change",
    status_code=HTTPStatus.NO_CONTENT,
    responses=error_responses(LinksUnavailable, TooManyAttempts),
)
async def change_email(
    data: LinkRequest,
    user: RecentLogin,
    client: ClientDep,
    database: DatabaseDep,
    settings: SettingsDep,
) -> None:
    """Send a link to your new email address, which confirms it. Needs a recent login.

    The link works once, for an hour. Until then, your address stays the same.
    """
    await account.request_email_change(database, settings, user, data.email, client.address)


@router.post(
    "/email/confirm", status_code=HTTPStatus.NO_CONTENT, responses=error_responses(InvalidLink)
)
async def confirm_email(
    data: EmailConfirmation, database: DatabaseDep, settings: SettingsDep
) -> None:
    """Confirm your new email address, or go back to the previous one, with the token of a link.

    The previous address gets a link with which to go back for seven days. That link also ends all
    login sessions and the password, and sends a link for a new one.
    """
    await account.confirm_email(database, settings, data.token)
