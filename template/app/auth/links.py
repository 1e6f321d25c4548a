"""Links in emails: one-time tokens, each for one purpose and a limited time."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import NamedTuple

from sqlalchemy import and_, delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import audit
from app.auth.authentication import AuthContext, hash_token
from app.auth.mail import queue_mail
from app.auth.models import OneTimeToken as OneTimeToken
from app.auth.models import Purpose as Purpose
from app.auth.models import delete_oldest
from app.core.errors import AppError, NotFound
from app.models.user import User
from app.settings import Settings

# A new link deletes at most this many expired ones, so that no request takes long.
_MAX_DELETED = 100
# Where the README starts the app.
_DEVELOPMENT_URL = "http://localhost:8001"


class _Link(NamedTuple):
    """How long it works, its page in `/account/` or at FRONTEND_URL, and its email in app/mails."""

    lifetime: timedelta
    page: str
    template: str


_LINKS = {
    Purpose.RESET_PASSWORD: _Link(timedelta(minutes=30), "reset-password", "password_reset"),
    # After that, the person asks for a new password instead.
    Purpose.INVITATION: _Link(timedelta(days=3), "reset-password", "invitation"),
    Purpose.REGISTER: _Link(timedelta(hours=1), "register", "registration"),
    Purpose.CHANGE_EMAIL: _Link(timedelta(hours=1), "confirm-email", "confirm_new_email"),
    # The way back, after someone else has changed the address.
    Purpose.RESTORE_EMAIL: _Link(timedelta(days=7), "confirm-email", "restore_previous_email"),
}
# A request for a link takes at least this long, whether the address belongs to a user or not.
_REQUEST_SECONDS = 0.5


class InvalidLink(AppError):
    """The same for a link that never existed, has expired, was replaced or was used."""

    status_code = HTTPStatus.BAD_REQUEST
    detail = "This link is invalid or has expired. Request a new one."
    event = "link_rejected"


class LinksUnavailable(NotFound):
    detail = "This service sends no links by email."


def check_available(settings: Settings) -> None:
    """LinksUnavailable, unless the settings say how emails are sent and where links lead."""
    base = settings.public_url or settings.frontend_url
    if not (settings.in_development or (settings.smtp_url and base)):
        raise LinksUnavailable


def _url(settings: Settings, purpose: Purpose, token: str) -> str:
    page = _LINKS[purpose].page
    if settings.frontend_url:
        # What comes after # stays in the browser.
        return f"{settings.frontend_url}/{page}#token={token}"
    return f"{settings.public_url or _DEVELOPMENT_URL}/account/{page}?token={token}"


@asynccontextmanager
async def hiding_duration() -> AsyncIterator[None]:
    """Let a request take equally long, whatever it finds."""
    started = time.monotonic()
    yield
    await asyncio.sleep(_REQUEST_SECONDS - (time.monotonic() - started))


def mailbox_key(email: str) -> str:
    """The name under which emails to an address that may be a stranger's are counted."""
    # Most providers deliver ada+any@example.com to ada@example.com, and some a.da@example.com.
    name, _, domain = email.partition("@")
    return f"mail to {name.partition('+')[0].replace('.', '')}@{domain}"


def use_key(token_hash: str) -> str:
    """The name under which the throttle counts the attempts to use a link."""
    return f"link {token_hash}"


async def create_link(
    session: AsyncSession,
    settings: Settings,
    purpose: Purpose,
    user: User | None,
    email: str,
    caller: AuthContext | None = None,
) -> str:
    """A new link, which ends the earlier ones for the same purpose and user or address."""
    now, token = datetime.now(UTC), secrets.token_urlsafe(32)
    # No user has the id 0: an unknown address costs the same statement.
    is_theirs = OneTimeToken.user_id == (user.id if user else 0)
    if purpose is Purpose.REGISTER:
        is_theirs = OneTimeToken.email == email
    elif purpose is Purpose.RESTORE_EMAIL:
        # Nothing that a thief does with an account may end the ways back to earlier addresses.
        is_theirs = and_(is_theirs, OneTimeToken.email == email)
    await session.execute(delete(OneTimeToken).where(OneTimeToken.purpose == purpose, is_theirs))
    await delete_oldest(session, OneTimeToken.expires_at, now, _MAX_DELETED)
    row = OneTimeToken(
        user_id=user.id if user else None,
        purpose=purpose,
        token_hash=hash_token(token),
        email=email,
        expires_at=now + _LINKS[purpose].lifetime,
    )
    session.add(row)
    await session.flush()
    if purpose is not Purpose.REGISTER:
        # That one changes no account. Strangers could fill the trail with it.
        unknown = audit.Target("one_time_tokens", row.id, "unknown")
        target = audit.target_user(user) if user else unknown
        await audit.record(session, caller, "link_created", target, purpose=[purpose])
    return _url(settings, purpose, token)


async def send(
    session: AsyncSession,
    settings: Settings,
    purpose: Purpose,
    user: User,
    to: str,
    caller: AuthContext | None = None,
    **values: str,
) -> None:
    """Send a new link to an address of a user. `values` are for its template, in app/mails."""
    link = await create_link(session, settings, purpose, user, to, caller)
    values |= {"link": link, "username": user.username}
    await queue_mail(session, to=to, template=_LINKS[purpose].template, **values)


async def find(session: AsyncSession, token: str, *purposes: Purpose) -> OneTimeToken:
    """The row of a valid token, or InvalidLink."""
    now = datetime.now(UTC)
    # The upper bound is for a clock that was wrong when the link was created.
    is_valid = or_(
        *(
            and_(
                OneTimeToken.purpose == purpose,
                OneTimeToken.expires_at.between(now, now + _LINKS[purpose].lifetime),
            )
            for purpose in purposes
        )
    )
    has_token = OneTimeToken.token_hash == hash_token(token)
    row: OneTimeToken | None = await session.scalar(select(OneTimeToken).where(has_token, is_valid))
    if row is None:
        raise InvalidLink
    return row


async def take(session: AsyncSession, row: OneTimeToken) -> None:
    """Use up a token; InvalidLink if another request has used or ended it."""
    used = delete(OneTimeToken).where(OneTimeToken.id == row.id)
    used = used.where(OneTimeToken.token_hash == row.token_hash)
    if (await session.scalars(used.returning(OneTimeToken.id))).one_or_none() is None:
        raise InvalidLink
    if row.purpose == Purpose.REGISTER:
        # On PostgreSQL, two requests at once leave two links to one address.
        is_same = and_(OneTimeToken.purpose == row.purpose, OneTimeToken.email == row.email)
        await session.execute(delete(OneTimeToken).where(is_same))


async def end(session: AsyncSession, user_id: int, *purposes: Purpose) -> None:
    is_theirs = and_(OneTimeToken.user_id == user_id, OneTimeToken.purpose.in_(purposes))
    await session.execute(delete(OneTimeToken).where(is_theirs))
