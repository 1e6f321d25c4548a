"""Login sessions: how a token identifies its user, and how sessions begin and end."""

import hashlib
import logging
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, bindparam, delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app import SLUG
from app.auth import audit
from app.auth.models import LoginSession
from app.auth.schemas import TokenRead
from app.core.database import Database, locks_rows
from app.core.errors import Unauthenticated
from app.models.user import Permission, User, user_permissions
from app.settings import Settings

logger = logging.getLogger(__name__)

MAX_SESSIONS = 20
# `last_used_at` is only this precise, so that most requests write nothing.
_TOUCH_AFTER = timedelta(minutes=5)
# Expired sessions are kept for a while, so that a clock that runs ahead deletes no valid ones.
_DELETE_AFTER = timedelta(days=30)
# A login deletes at most this many, so that none takes long after many have expired.
_MAX_DELETED = 100
_TOKEN = re.compile(re.escape(SLUG) + r"_[\w-]{43}", re.ASCII)


@dataclass(frozen=True)
class AuthContext:
    """Who sent a request, and what they may do at this moment."""

    user_id: int
    username: str
    email: str
    session_id: int
    token_hash: str = field(repr=False)
    logged_in_at: datetime
    last_used_at: datetime
    permissions: frozenset[str]


@dataclass(frozen=True)
class Client:
    """Where a login comes from."""

    address: str
    user_agent: str
    # What the client sent before it logged in. The new token replaces it.
    token: str | None = field(default=None, repr=False)


def hash_token(token: str) -> str:
    """What is stored of a token. A fast hash is enough, since a token cannot be guessed."""
    return hashlib.sha256(token.encode()).hexdigest()


def _new_token() -> str:
    """256 random bits, with a prefix by which secret scanners recognize it."""
    return f"{SLUG}_{secrets.token_urlsafe(32)}"


# Neither idle for too long nor too old. A wrong clock may have dated a session far ahead. Without
# the upper bounds, such a session would never expire.
_IS_LIVE = and_(
    LoginSession.created_at.between(bindparam("oldest"), bindparam("youngest")),
    LoginSession.last_used_at.between(bindparam("unused_since"), bindparam("used_until")),
)


def _lifetimes(settings: Settings) -> dict[str, datetime]:
    """The parameters of _IS_LIVE."""
    now = datetime.now(UTC)
    idle = timedelta(days=settings.session_idle_days)
    absolute = timedelta(days=settings.session_absolute_days)
    return {
        "oldest": now - absolute,
        "youngest": now + absolute,
        "unused_since": now - idle,
        "used_until": now + idle,
    }


# Every request with a token runs one query: from the token to its session, user and permissions.
# It is built once and from tables: an ORM query that each request builds takes twice as long.
_users, _sessions, _permissions = User.__table__, LoginSession.__table__, Permission.__table__
# ASCII's unit separator, which no name contains.
_SEPARATOR = "\x1f"
_PERMISSION_NAMES = (
    select(func.aggregate_strings(_permissions.c.name, _SEPARATOR))
    .join_from(_permissions, user_permissions)
    .where(user_permissions.c.user_id == _users.c.id)
    .scalar_subquery()
)
_HAS_TOKEN = and_(
    _sessions.c.token_hash == bindparam("token_hash"),
    _users.c.id == _sessions.c.user_id,
    _users.c.is_active,
)
_AUTH_CONTEXT = select(
    _users.c.id,
    _users.c.username,
    _users.c.email,
    _sessions.c.id,
    _sessions.c.token_hash,
    _sessions.c.created_at,
    _sessions.c.last_used_at,
    _PERMISSION_NAMES,
).where(_HAS_TOKEN, _IS_LIVE)

# Users are always locked before their sessions and throttles, and in the order of their ids.
# Otherwise two changes could deadlock.
_LOCK_USERS = (
    select(_users.c.id)
    .where(_users.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(_users.c.id)
    .with_for_update()
)
# On PostgreSQL, the lock keeps the session from ending before the change is committed.
_LOCK_SESSION = select(_PERMISSION_NAMES).where(_HAS_TOKEN).with_for_update(read=True, of=_sessions)


def _split(names: str | None) -> frozenset[str]:
    return frozenset(names.split(_SEPARATOR) if names else ())


async def authenticate(session: AsyncSession, settings: Settings, token: str) -> AuthContext | None:
    """Who sends requests with this token, or None if its login session has ended."""
    if not _TOKEN.fullmatch(token):
        return None
    parameters = {"token_hash": hash_token(token), **_lifetimes(settings)}
    row = (await session.execute(_AUTH_CONTEXT, parameters)).one_or_none()
    return row and AuthContext(*row[:-1], _split(row[-1]))


async def reauthenticate(
    session: AsyncSession, caller: AuthContext, user_id: int | None = None
) -> frozenset[str]:
    """Check the login session again, in the transaction of a change.

    Returns the permissions that the caller holds now. The change may have waited since the request
    was authenticated. From here on, no other transaction can change the caller, or the user with
    `user_id`.
    """
    if locks_rows(session):
        await session.execute(_LOCK_USERS, {"ids": [caller.user_id, user_id or caller.user_id]})
    parameters = {"token_hash": caller.token_hash}
    row = (await session.execute(_LOCK_SESSION, parameters)).one_or_none()
    if row is None:
        raise Unauthenticated
    return _split(row[0])


def needs_touch(caller: AuthContext) -> bool:
    return abs(datetime.now(UTC) - caller.last_used_at) > _TOUCH_AFTER


async def touch(database: Database, caller: AuthContext) -> None:
    """Record that a session is in use. Runs after the response, so that no request waits for it."""
    statement = update(LoginSession).where(LoginSession.id == caller.session_id)
    try:
        async with database.writers.begin() as session:
            await session.execute(statement.values(last_used_at=datetime.now(UTC)))
    except SQLAlchemyError as error:
        logger.warning("Cannot record the use of a session: %s", getattr(error, "orig", error))


async def create_login_session(
    session: AsyncSession, settings: Settings, user_id: int, client: Client
) -> TokenRead:
    """Begin a session. Ends the client's previous one, and the user's oldest over the limit."""
    now, token = datetime.now(UTC), _new_token()
    newest = (
        select(LoginSession.id)
        .where(LoginSession.user_id == user_id)
        .order_by(LoginSession.id.desc())
        .limit(MAX_SESSIONS - 1)
    )
    surplus = and_(LoginSession.user_id == user_id, LoginSession.id.not_in(newest))
    await session.execute(delete(LoginSession).where(surplus))
    await _delete_expired(session, settings, now)
    await audit.delete_expired(session, settings, now)
    new = LoginSession(
        user_id=user_id,
        token_hash=hash_token(token),
        created_at=now,
        last_used_at=now,
        address=client.address[:64],
        user_agent=client.user_agent[:200],
    )
    session.add(new)
    await session.flush()
    user = await session.get_one(User, user_id)
    who = user.id, user.username, user.email
    caller = AuthContext(*who, new.id, new.token_hash, now, now, frozenset())
    audit.record(session, caller, "login", audit.target_user(user))
    await _end_previous(session, caller, client)
    expires_at = now + timedelta(days=settings.session_absolute_days)
    return TokenRead(access_token=token, expires_at=expires_at)


async def _end_previous(session: AsyncSession, caller: AuthContext, client: Client) -> None:
    """End the session whose token the client sent (ASVS 7.2.4), also if it is of another user."""
    if client.token is None or not _TOKEN.fullmatch(client.token):
        return
    previous = delete(LoginSession).where(LoginSession.token_hash == hash_token(client.token))
    ended = previous.returning(LoginSession.id, LoginSession.user_id)
    for session_id, user_id in (await session.execute(ended)).all():
        user = await session.get_one(User, user_id)
        log_end(session, caller, session_id, user.id, user.username)


async def _delete_expired(session: AsyncSession, settings: Settings, now: datetime) -> None:
    unused = timedelta(days=settings.session_idle_days) + _DELETE_AFTER
    expired = select(LoginSession.id).where(LoginSession.last_used_at < now - unused)
    oldest = expired.order_by(LoginSession.last_used_at).limit(_MAX_DELETED)
    # Skips sessions that their own user is about to end, to avoid a deadlock.
    unlocked = oldest.with_for_update(skip_locked=True)
    await session.execute(delete(LoginSession).where(LoginSession.id.in_(unlocked)))


async def list_login_sessions(
    session: AsyncSession, settings: Settings, user_id: int
) -> list[LoginSession]:
    statement = select(LoginSession).where(LoginSession.user_id == user_id, _IS_LIVE)
    found = await session.scalars(statement.order_by(LoginSession.id), _lifetimes(settings))
    return list(found)


def log_end(
    session: AsyncSession, caller: AuthContext, session_id: int, user_id: int, username: str
) -> None:
    audit.record(session, caller, "logout", audit.Target("sessions", session_id, username))
    logger.info("Logged out", extra={"event": "logout", "target_user_id": user_id})


async def revoke_all(session: AsyncSession, user_id: int, *, keep: int | None = None) -> None:
    statement = delete(LoginSession).where(LoginSession.user_id == user_id)
    if keep is not None:
        statement = statement.where(LoginSession.id != keep)
    await session.execute(statement)
    fields = {"event": "sessions_revoked", "target_user_id": user_id}
    logger.info("Logged out everywhere", extra=fields)
