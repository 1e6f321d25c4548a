"""Sends the emails in the table outgoing_mails, while the app runs or from the command line.

Each email is claimed before an attempt: its next one is set to a time by which this one has ended.
So several processes can send at once, a killed one loses nothing, and no transaction is open while
the mail server answers. An email is sent twice only if its process is killed, or the
database fails, between the server's answer and the deletion of the row.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from enum import Enum, auto
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from email_validator import validate_email
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import delete, select, update

from app.auth.mail import one_line, read_mail, write_mail
from app.auth.models import OutgoingMail
from app.core.database import Database
from app.settings import Settings

if TYPE_CHECKING:
    # Imported on first use: most workers never send an email.
    from aiosmtplib import SMTP

    from app.core.checks import CheckResult

logger = logging.getLogger(__name__)

# How often a running app looks for emails, and how long it waits after the server failed.
_POLL_SECONDS = 5
_PAUSE_SECONDS = 30
# An attempt is cut off after this time. The next one is later, even if the clocks of two machines
# differ by a minute. The wait doubles with each attempt.
_ATTEMPT_SECONDS = 60
_FIRST_WAIT = timedelta(minutes=2)
_GIVE_UP_AFTER = timedelta(days=3)
# How long the app waits for an email in hand when it stops.
_STOP_SECONDS = 10
_CHECK_SECONDS = 15
_MAX_REASON_LENGTH = 500
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}


class Outcome(Enum):
    SENT = auto()
    # Something is wrong with this email, so others may succeed.
    FAILED = auto()
    # The server cannot be used, so others would fail, too.
    UNAVAILABLE = auto()


@asynccontextmanager
async def sending_mails(app: FastAPI) -> AsyncIterator[None]:
    """Sends emails while the app runs. Several workers share the work."""
    stopped = asyncio.Event()
    task = asyncio.create_task(_send_until(stopped, app.state.database, app.state.settings))
    try:
        yield
    finally:
        stopped.set()
        await asyncio.wait([task], timeout=_STOP_SECONDS)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _send_until(stopped: asyncio.Event, database: Database, settings: Settings) -> None:
    seconds = _POLL_SECONDS
    while not stopped.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), seconds)
        outcome: Outcome | None = Outcome.UNAVAILABLE
        try:
            while not stopped.is_set():
                outcome = await send_next(database, settings)
                if outcome in (None, Outcome.UNAVAILABLE):
                    break
        except Exception as error:
            # Such as a database that is down or not migrated. The task must outlive everything.
            logger.warning("Cannot read the emails to send: %s", getattr(error, "orig", error))
        seconds = _POLL_SECONDS if outcome is None else _PAUSE_SECONDS


async def send_next(database: Database, settings: Settings) -> Outcome | None:
    """Try to send the email that has waited longest. None if there is none, or no mail server."""
    if settings.smtp_url is None and not settings.in_development:
        return None
    mail = await _claim(database)
    if mail is None:
        return None
    try:
        if datetime.now(UTC) - mail.queued_at > _GIVE_UP_AFTER:
            raise TimeoutError("It could not be sent in time.")
        message = write_mail(mail, settings)
    except Exception as error:
        # Owners write the templates, so they may fail in any way.
        await _note_failure(database, mail, error)
        return Outcome.FAILED
    if settings.smtp_url is None or settings.in_development:
        logger.info("Email, not sent in development:\n%s", read_mail(message))
        await _update(database, mail, next_attempt_at=None, last_error=None)
        return Outcome.SENT
    with closing(mail_server(settings.smtp_url)) as server:
        try:
            await _send(server, mail, message)
        except Exception as error:
            codes = _codes_about_mail(error)
            await _note_failure(database, mail, error, is_final=min(codes, default=0) >= 500)
            # 421 says that the server closes the connection (RFC 5321, section 4.2.2).
            return Outcome.FAILED if codes and 421 not in codes else Outcome.UNAVAILABLE
        await _finish(database, server, mail)
    return Outcome.SENT


async def _claim(database: Database) -> OutgoingMail | None:
    """The next email, which no other process sees until its next attempt is due."""
    due = select(OutgoingMail).where(OutgoingMail.next_attempt_at <= datetime.now(UTC))
    oldest = due.order_by(OutgoingMail.next_attempt_at).limit(1)
    # Without the write lock first: most of the time, there is nothing to send.
    async with database.readers.begin() as session:
        if await session.scalar(oldest) is None:
            return None
    async with database.writers.begin() as session:
        mail: OutgoingMail | None = await session.scalar(oldest.with_for_update(skip_locked=True))
        if mail is not None:
            mail.next_attempt_at = datetime.now(UTC) + _FIRST_WAIT * 2**mail.attempts
            mail.attempts += 1
    return mail


async def _send(server: "SMTP", mail: OutgoingMail, message: EmailMessage) -> None:
    address = _ascii_domain(mail.recipient)
    message.replace_header("To", address)
    async with asyncio.timeout(_ATTEMPT_SECONDS):
        await server.connect()
        await server.send_message(message, recipients=[address])


async def _finish(database: Database, server: "SMTP", mail: OutgoingMail) -> None:
    """Delete the row of an email that the server has accepted. Then it is not sent again."""
    from aiosmtplib import SMTPException

    async with database.writers.begin() as session:
        await session.execute(delete(OutgoingMail).where(OutgoingMail.id == mail.id))
    logger.info("Email sent", extra=_fields("mail_sent", mail))
    with suppress(SMTPException, OSError):
        await server.quit(timeout=1)


def _ascii_domain(address: str) -> str:
    """Spell a domain such as straße.de in ASCII, which every mail server understands.

    Raises an error for anything but one address.
    """
    found = validate_email(address, check_deliverability=False, test_environment=True)
    return found.ascii_email or f"{found.local_part}@{found.ascii_domain}"


def mail_server(smtp_url: SecretStr) -> "SMTP":
    """A client for the mail server, which is not connected yet."""
    from aiosmtplib import SMTP

    url = urlsplit(smtp_url.get_secret_value())
    is_private = url.hostname in _LOCAL_HOSTS or url.query == "tls=none"
    return SMTP(
        hostname=url.hostname,
        port=url.port,
        username=None if url.username is None else unquote(url.username),
        password=None if url.password is None else unquote(url.password),
        use_tls=url.scheme == "smtps",
        # STARTTLS is required: if it were only tried, anyone in between could prevent it.
        start_tls=url.scheme == "smtp" and not is_private,
        # For each answer. If a shorter one cut off the last answer, the email would be sent again.
        timeout=_ATTEMPT_SECONDS,
    )


def _codes_about_mail(error: Exception) -> list[int]:
    """The SMTP codes of a rejected mail: 5xx is final. Empty if the server could not be used."""
    from aiosmtplib import SMTPDataError, SMTPException, SMTPNotSupported, SMTPRecipientsRefused

    match error:
        case SMTPRecipientsRefused():
            return [refusal.code for refusal in error.recipients]
        case SMTPDataError():
            return [error.code]
        case SMTPNotSupported():
            # The address has other characters than ASCII, and the server cannot handle them.
            return [553]
        case SMTPException() | OSError():
            return []
    # The address cannot be written in a command at all.
    return [501]


async def _note_failure(
    database: Database, mail: OutgoingMail, error: Exception, *, is_final: bool = False
) -> None:
    """Store why an attempt failed. Gives up if the next one would be too late."""
    next_attempt_at = mail.next_attempt_at
    if is_final or next_attempt_at is None or next_attempt_at > mail.queued_at + _GIVE_UP_AFTER:
        next_attempt_at = None
    # A server may answer with anything, even with invalid text.
    reason = one_line(f"{type(error).__name__}: {error}", _MAX_REASON_LENGTH)
    await _update(database, mail, next_attempt_at=next_attempt_at, last_error=reason)
    # The text of an error may quote the address. `mail list` shows it.
    fields = {**_fields("mail_failed", mail), "error": type(error).__name__}
    logger.error("Email given up" if next_attempt_at is None else "Email delayed", extra=fields)


async def _update(database: Database, mail: OutgoingMail, **changes: object) -> None:
    async with database.writers.begin() as session:
        statement = update(OutgoingMail).where(OutgoingMail.id == mail.id)
        await session.execute(statement.values(**changes))


def _fields(event: str, mail: OutgoingMail) -> dict[str, object]:
    return {"event": event, "mail_id": mail.id, "template": mail.template}


async def check_mail(settings: Settings) -> "list[CheckResult]":
    """For `check`: whether the mail server can be reached and accepts the password."""
    from aiosmtplib import SMTPException

    from app.core.checks import CheckResult

    if settings.in_development:
        return [CheckResult("ok", "mail: not sent in development, read it at /dev/mail")]
    if settings.smtp_url is None:
        return [CheckResult("warning", "mail: not sent, because SMTP_URL is not set")]
    server = mail_server(settings.smtp_url)
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await server.connect()
            await server.quit()
    except (SMTPException, OSError) as error:
        message = f"mail: cannot use {server.hostname}: {type(error).__name__}: {error}"
        return [CheckResult("error", message)]
    finally:
        server.close()
    return [CheckResult("ok", f"mail: {server.hostname} accepts the connection")]
