"""The pages at /dev/mail: the emails of the app, which development does not send."""

import re
from html import escape
from importlib.resources import files
from string import Template

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select

from app.auth.dependencies import SessionDep, SettingsDep
from app.auth.mail import read_mail, write_mail
from app.auth.models import OutgoingMail
from app.core.errors import NotFound
from app.core.pages import source_hash
from app.core.resources import load
from app.core.routing import IdPath
from app.settings import Settings

mailbox = APIRouter(prefix="/dev/mail", include_in_schema=False)

_MAX_LISTED = 100
# For escaped text. There, "&amp;" is part of an address, and any other "&" ends it.
_URL = re.compile(r"https?://[^\s&]+(?:&amp;[^\s&]+)*")
_PAGE = files("app.auth").joinpath("mailbox.html").read_text("utf-8")
_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_POLICY = f"{_NOTHING}; style-src {source_hash(_PAGE, 'style')}"
# An HTML email may have any inline style. It runs no script, and shares no origin with the app.
_MAIL_POLICY = f"{_NOTHING}; style-src 'unsafe-inline'; img-src data:; sandbox"


@mailbox.get("")
async def list_mails(session: SessionDep, settings: SettingsDep) -> HTMLResponse:
    newest = select(OutgoingMail).order_by(OutgoingMail.id.desc()).limit(_MAX_LISTED)
    rows = [
        f'<li><a href="/dev/mail/{mail.id}">{escape(_subject(mail, settings))}</a>'
        f"<span>{escape(mail.recipient)}, {mail.queued_at:%Y-%m-%d %H:%M} UTC</span></li>"
        for mail in await session.scalars(newest)
    ]
    return _page("Emails", f"<ul>{''.join(rows)}</ul>" if rows else "<p>There are none yet.</p>")


@mailbox.get("/{mail_id:id}")
async def read(mail_id: IdPath, session: SessionDep, settings: SettingsDep) -> HTMLResponse:
    mail = await load(session, OutgoingMail, mail_id)
    try:
        message = write_mail(mail, settings)
    except Exception as error:
        return _page("Invalid template", f"<pre>{escape(_reason(mail, error))}</pre>")
    content = f"<pre>{_with_links(read_mail(message))}</pre>"
    if message.get_body(["html"]):
        content += f'<p><a href="/dev/mail/{mail.id}/html">HTML version</a></p>'
    return _page(_subject(mail, settings), content)


@mailbox.get("/{mail_id:id}/html")
async def read_html(mail_id: IdPath, session: SessionDep, settings: SettingsDep) -> HTMLResponse:
    mail = await load(session, OutgoingMail, mail_id)
    body = write_mail(mail, settings).get_body(["html"])
    if body is None:
        raise NotFound
    return HTMLResponse(body.get_content(), headers={"Content-Security-Policy": _MAIL_POLICY})


def _subject(mail: OutgoingMail, settings: Settings) -> str:
    try:
        return str(write_mail(mail, settings)["Subject"])
    except Exception as error:
        return _reason(mail, error)


def _reason(mail: OutgoingMail, error: Exception) -> str:
    return f"The template {mail.template} is invalid: {type(error).__name__}: {error}"


def _with_links(text: str) -> str:
    """The text as HTML. Only addresses of the web become links."""
    return _URL.sub(r'<a href="\g<0>">\g<0></a>', escape(text))


def _page(title: str, content: str) -> HTMLResponse:
    page = Template(_PAGE).substitute(title=escape(title), content=content)
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})
