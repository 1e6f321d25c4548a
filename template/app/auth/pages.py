"""The pages that links in emails open, and the one that asks for such a link.

GET shows a form, and only POST acts: some mail programs open every link, which must not use it up.
"""

from html import escape
from importlib.resources import files
from string import Template
from typing import Annotated

from fastapi import Form, Query
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from app import TITLE
from app.auth import account
from app.auth.dependencies import FROM_THIS_SITE, ClientDep, DatabaseDep, SettingsDep
from app.auth.links import InvalidLink
from app.auth.schemas import LinkRequest, PasswordReset, Registration, TokenText
from app.core.errors import AppError, FieldError, Invalid
from app.core.pages import source_hash
from app.core.routing import Router

router = Router(
    prefix="/account",
    include_in_schema=False,
    max_body_size=16 * 1024,
    dependencies=[FROM_THIS_SITE],
)

_PAGE = files("app.auth").joinpath("page.html").read_text("utf-8")
# No script, and no way to send the form elsewhere. `Referrer-Policy: no-referrer` keeps the token
# in the address from other sites; every response has it.
_POLICY = (
    f"default-src 'none'; style-src {source_hash(_PAGE, 'style')}; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

TokenQuery = Annotated[TokenText, Query()]
TokenForm = Annotated[TokenText, Form()]


@router.get("/forgot-password")
async def show_request_form() -> HTMLResponse:
    return _request_form("")


@router.post("/forgot-password")
async def request_password_reset(
    email: Annotated[str, Form()], client: ClientDep, database: DatabaseDep, settings: SettingsDep
) -> HTMLResponse:
    try:
        data = LinkRequest(email=email)
        await account.request_password_reset(database, settings, data.email, client.address)
    except ValidationError as error:
        return _request_form(email, _invalid(error.errors()[0]["msg"]))
    except AppError as error:
        return _request_form(email, error)
    # The same for an address that no user has.
    return _page("Check your email", "<p>If you have an account, a link is on its way.</p>")


@router.get("/reset-password")
async def show_password_form(token: TokenQuery = "") -> HTMLResponse:
    return _password_form(token) if token else _request_form("")


@router.post("/reset-password")
async def choose_password(
    token: TokenForm,
    new_password: Annotated[str, Form()],
    client: ClientDep,
    database: DatabaseDep,
    settings: SettingsDep,
) -> HTMLResponse:
    try:
        data = PasswordReset(token=token, new_password=new_password)
        await account.reset_password(database, settings, data, client.address)
    except ValidationError:
        reason = f"Use {settings.password_min_length} to 256 characters."
        return _password_form(token, _invalid(reason))
    except InvalidLink as error:
        return _request_form("", error)
    except AppError as error:
        return _password_form(token, error)
    return _page("Your password is saved", "<p>Log in with the new password.</p>")


@router.get("/register")
async def show_registration_form(token: TokenQuery = "") -> HTMLResponse:
    return _registration_form(token, "")


@router.post("/register")
async def register(
    token: TokenForm,
    username: Annotated[str, Form()],
    new_password: Annotated[str, Form()],
    client: ClientDep,
    database: DatabaseDep,
    settings: SettingsDep,
) -> HTMLResponse:
    try:
        data = Registration(token=token, username=username, password=new_password)
        await account.register(database, settings, data, client.address)
    except ValidationError:
        reason = (
            "Use 3 to 32 characters for the username: a-z, 0-9, dot, _ and -. Use "
            f"{settings.password_min_length} to 256 characters for the password."
        )
        return _registration_form(token, username, _invalid(reason))
    except AppError as error:
        return _registration_form(token, username, error)
    return _page("Welcome", "<p>Log in with your username and password.</p>")


@router.get("/confirm-email")
async def show_email_form(token: TokenQuery = "") -> HTMLResponse:
    return _email_form(token)


@router.post("/confirm-email")
async def confirm_email(
    token: TokenForm, database: DatabaseDep, settings: SettingsDep
) -> HTMLResponse:
    try:
        await account.confirm_email(database, settings, token)
    except AppError as error:
        return _email_form(token, error)
    return _page("Your email address is confirmed", "<p>You can close this page.</p>")


def _request_form(email: str, error: AppError | None = None) -> HTMLResponse:
    return _form_page(
        "Forgot your password?",
        '<label>Email address<input type="email" name="email" maxlength="254" autocomplete="email" '
        f'required autofocus value="{escape(email)}"></label>',
        "Send a link",
        error,
        action="forgot-password",
    )


def _email_form(token: str, error: AppError | None = None) -> HTMLResponse:
    warning = (
        "<p>A link that restores a previous address also removes your password and ends all login "
        "sessions. Then you get an email with a link for a new password.</p>"
    )
    return _form_page("Confirm your email address", _hide(token) + warning, "Confirm", error)


def _registration_form(token: str, username: str, error: AppError | None = None) -> HTMLResponse:
    return _form_page(
        "Choose a username and a password",
        f"{_hide(token)}"
        '<label>Username<input name="username" maxlength="32" autocomplete="username" required '
        f'autofocus value="{escape(username)}"></label>'
        '<label>Password<input type="password" name="new_password" maxlength="256" '
        'autocomplete="new-password" required></label>',
        "Create the account",
        error,
    )


def _password_form(token: str, error: AppError | None = None) -> HTMLResponse:
    return _form_page(
        "Choose a password",
        f"{_hide(token)}<p>This ends all your login sessions.</p>"
        '<label>New password<input type="password" name="new_password" maxlength="256" '
        'autocomplete="new-password" required autofocus></label>',
        "Save the password",
        error,
    )


def _hide(token: str) -> str:
    return f'<input type="hidden" name="token" value="{escape(token)}">'


def _invalid(reason: str) -> Invalid:
    return Invalid([FieldError(["body"], reason, "value_error")])


def _form_page(
    heading: str, fields: str, button: str, error: AppError | None = None, *, action: str = "?"
) -> HTMLResponse:
    # By default, it is sent to the path of the page, without the token in the address.
    form = f'<form method="post" action="{action}">{fields}<button>{button}</button></form>'
    if error is None:
        return _page(heading, form)
    reason = error.errors[0].msg if error.errors else error.detail
    response = _page(heading, f'<p role="alert">{escape(reason)}</p>{form}')
    response.status_code = error.status_code
    response.headers.update(error.headers)
    return response


def _page(heading: str, content: str) -> HTMLResponse:
    page = Template(_PAGE).substitute(service=escape(TITLE), heading=heading, content=content)
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})
