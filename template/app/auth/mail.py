"""Emails: queued in the transaction of a change, and written from the templates in app/mails.

`await queue_mail(session, to=user.email, template="password_reset", link=link)` adds a row to the
table outgoing_mails, so the email exists if the change is committed, and only then.
app/auth/mail_sender.py sends it.
"""

import re
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from html import escape
from importlib.resources import files
from string import Template

from sqlalchemy.ext.asyncio import AsyncSession

from app import TITLE
from app.auth import throttle
from app.auth.models import OutgoingMail, delete_oldest
from app.models.user import User
from app.settings import Settings

_FOLDER = files("app").joinpath("mails")
# A longer value is cut, so that none can fill an email or the table.
_MAX_VALUE_LENGTH = 1000
_MAX_SUBJECT_LENGTH = 200
# Emails that could not be sent, and all of development, are kept for a while to be read. A new one
# deletes at most this many.
_DELETE_AFTER = timedelta(days=30)
_MAX_DELETED = 20
# Notices of one kind to one address, which may be a stranger's.
_MAX_NOTICES = 10
_NOTICES_WINDOW = timedelta(days=1)


async def queue_mail(session: AsyncSession, *, to: str, template: str, **values: str) -> None:
    """Send an email after this transaction is committed. `to` is an address, without a name.

    `template` names a file in app/mails, and `values` replace its placeholders. A value is one
    line: otherwise it could pass for a part of the email.
    """
    now = datetime.now(UTC)
    await delete_oldest(session, OutgoingMail.queued_at, now - _DELETE_AFTER, _MAX_DELETED)
    session.add(
        OutgoingMail(
            recipient=to,
            template=template,
            variables={name: one_line(value, _MAX_VALUE_LENGTH) for name, value in values.items()},
            queued_at=now,
            next_attempt_at=now,
        )
    )
    await session.flush()


async def notify(
    session: AsyncSession,
    settings: Settings,
    user: User,
    template: str,
    *,
    to: str | None = None,
    **values: str,
) -> None:
    """Tell a user by email what happened to the account, by default at the present address.

    An address gets a limited number of each kind a day.
    """
    to = to or user.email
    # Without a mail server, it would only fill the table.
    if not (settings.in_development or settings.smtp_url):
        return
    if await _count(session, template, to):
        values["username"] = user.username
        await queue_mail(session, to=to, template=template, **values)


async def _count(session: AsyncSession, kind: str, email: str) -> bool:
    """Count a notice to an address. False if today's limit was reached.

    A kind has its own limit, so that no one can silence one kind with another.
    """
    now = datetime.now(UTC)
    row = await throttle.lock(session, throttle.hash_name(f"{kind} to {email}"), now)
    if abs(now - row.timer_started_at) > _NOTICES_WINDOW:
        row.attempts, row.timer_started_at = 0, now
    is_allowed = row.attempts < _MAX_NOTICES
    row.attempts += is_allowed
    return is_allowed


def write_mail(mail: OutgoingMail, settings: Settings) -> EmailMessage:
    """The email as it is sent. Raises an error if its template is missing or invalid.

    It is written only now, so that a mistake in a template fails no request, and can be fixed
    before the email is sent again.
    """
    values = {"app": TITLE, **mail.variables}
    text = _FOLDER.joinpath(f"{mail.template}.txt").read_text("utf-8")
    first_line, _, body = text.partition("\n")
    subject = _fill(first_line.removeprefix("Subject:"), values)
    message = EmailMessage()
    message["Subject"] = one_line(subject, _MAX_SUBJECT_LENGTH)
    message["From"] = settings.mail_from or "no-reply@localhost"
    message["To"] = mail.recipient
    message["Date"] = format_datetime(mail.queued_at)
    domain = message["From"].addresses[0].domain
    # The same for every attempt, so that a mail program can recognize an email that it has.
    message["Message-ID"] = f"<{mail.id}.{mail.queued_at.timestamp():.0f}@{domain}>"
    # Asks for no automatic reply (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_fill(body.lstrip(), values))
    layout = _FOLDER.joinpath("layout.html")
    if layout.is_file():
        escaped = {name: escape(value) for name, value in values.items()}
        own = _FOLDER.joinpath(f"{mail.template}.html")
        has_own = own.is_file()
        content = _fill(own.read_text("utf-8"), escaped) if has_own else _to_html(body, escaped)
        frame = {**escaped, "subject": escape(message["Subject"]), "content": content}
        message.add_alternative(_fill(layout.read_text("utf-8"), frame), subtype="html")
    return message


def _fill(template: str, values: dict[str, str]) -> str:
    return Template(template).substitute(values)


def _to_html(text: str, escaped: dict[str, str]) -> str:
    """The paragraphs of a text. One that is an address of the web becomes a link."""
    paragraphs = []
    # Split before the values are filled in, so that no value begins a paragraph.
    for paragraph in re.split(r"\n\s*\n", escape(text.strip())):
        filled = _fill(paragraph, escaped)
        link = re.fullmatch(r"https?://\S+", filled) and f'<a href="{filled}">{filled}</a>'
        paragraphs.append(f"<p>{link or filled}</p>")
    return "\n".join(paragraphs)


def read_mail(message: EmailMessage) -> str:
    """The text of an email, with its subject, to be read in development."""
    body = message.get_body(["plain"])
    text = body.get_content() if body else ""
    return f"To: {message['To']}\nSubject: {message['Subject']}\n\n{text}"


def one_line(text: str, limit: int) -> str:
    """One line, without control characters, of at most this length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
