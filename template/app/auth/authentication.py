"""How a token identifies its user: that of a login session, or an API key."""

import hashlib
import logging
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

from sqlalchemy import and_, bindparam, func, literal_column, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app import SLUG
from app.auth.models import ApiKey, LoginSession
from app.auth.schemas import MAX_KEY_DAYS
from app.core.database import Database, locks_rows
from app.core.errors import Unauthenticated
from app.models.user import Permission, User, user_permissions
from app.settings import Settings

logger = logging.getLogger(__name__)

# `last_used_at` is only this precise, so that most requests write nothing.
_TOUCH_AFTER = timedelta(minutes=5)

# 256 random bits, with a prefix by which secret scanners recognize them.
TOKEN_PREFIX = f"{SLUG}_"
KEY_PREFIX = f"{SLUG}_key_"
TOKEN = re.compile(re.escape(TOKEN_PREFIX) + r"[\w-]{43}", re.ASCII)
_KEY = re.compile(re.escape(KEY_PREFIX) + r"[\w-]{43}", re.ASCII)
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class AuthContext:
    """Who sent a request, and what they may do at this moment."""

    user_id: int
    username: str
    email: str
    # None if the request was sent with an API key.
    session_id: int | None
    token_hash: str = field(repr=False)
    # Long ago for an API key, so that it never counts as a recent login.
    logged_in_at: datetime
    last_used_at: datetime
    permissions: frozenset[str]
    api_key_id: int | None = None


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


# Neither idle for too long nor too old. A wrong clock may have dated a session far ahead. Without
# the upper bounds, such a session would never expire.
IS_LIVE = and_(
    LoginSession.created_at.between(bindparam("oldest"), bindparam("youngest")),
    LoginSession.last_used_at.between(bindparam("unused_since"), bindparam("used_until")),
)


def lifetimes(settings: Settings) -> dict[str, datetime]:
    """The parameters of IS_LIVE."""
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
# ASCII's unit separator, which no name contains. It is part of the statement: SQLAlchemy would
# write a parameter into the text again for each request.
_SEPARATOR = "\x1f"
_SEPARATOR_SQL = cast(str, literal_column(f"'{_SEPARATOR}'"))
_PERMISSION_NAMES = (
    select(func.aggregate_strings(_permissions.c.name, _SEPARATOR_SQL))
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
).where(_HAS_TOKEN, IS_LIVE)

_keys = ApiKey.__table__
_HAS_KEY = and_(
    _keys.c.token_hash == bindparam("token_hash"),
    # Without the upper bound, a key that a wrong clock dated far ahead would hardly expire.
    _keys.c.expires_at.between(bindparam("now"), bindparam("latest")),
    _users.c.id == _keys.c.user_id,
    _users.c.is_active,
)
_KEY_CONTEXT = select(
    _users.c.id,
    _users.c.username,
    _users.c.email,
    _keys.c.id,
    _keys.c.token_hash,
    _keys.c.last_used_at,
    _keys.c.scopes,
    _PERMISSION_NAMES,
).where(_HAS_KEY)

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
_LOCK_KEY = (
    select(_PERMISSION_NAMES, _keys.c.scopes).where(_HAS_KEY).with_for_update(read=True, of=_keys)
)


def _split(names: str | None) -> frozenset[str]:
    return frozenset(names.split(_SEPARATOR) if names else ())


async def authenticate(session: AsyncSession, settings: Settings, token: str) -> AuthContext | None:
    """Who sends requests with this token, or None if its login session or key has ended."""
    if not TOKEN.fullmatch(token):
        return await _authenticate_key(session, token)
    parameters = {"token_hash": hash_token(token), **lifetimes(settings)}
    row = (await session.execute(_AUTH_CONTEXT, parameters)).one_or_none()
    return row and AuthContext(*row[:-1], _split(row[-1]))


async def _authenticate_key(session: AsyncSession, token: str) -> AuthContext | None:
    if not _KEY.fullmatch(token):
        return None
    row = (await session.execute(_KEY_CONTEXT, _key_parameters(hash_token(token)))).one_or_none()
    if row is None:
        return None
    user_id, username, email, key_id, token_hash, last_used_at, scopes, names = row
    return AuthContext(
        user_id=user_id,
        username=username,
        email=email,
        session_id=None,
        token_hash=token_hash,
        logged_in_at=_NEVER,
        last_used_at=last_used_at or _NEVER,
        permissions=_split(names) & frozenset(scopes),
        api_key_id=key_id,
    )


def _key_parameters(token_hash: str) -> dict[str, object]:
    now = datetime.now(UTC)
    return {"token_hash": token_hash, "now": now, "latest": now + timedelta(days=MAX_KEY_DAYS + 1)}


async def reauthenticate(
    session: AsyncSession, caller: AuthContext, user_id: int | None = None
) -> frozenset[str]:
    """Check the login session or the key again, in the transaction of a change.

    Returns the permissions that the caller holds now. The change may have waited since the request
    was authenticated. From here on, no other transaction can change the caller, or the user with
    `user_id`.
    """
    if locks_rows(session):
        await session.execute(_LOCK_USERS, {"ids": [caller.user_id, user_id or caller.user_id]})
    is_key = caller.api_key_id is not None
    statement = _LOCK_KEY if is_key else _LOCK_SESSION
    token_hash = caller.token_hash
    parameters = _key_parameters(token_hash) if is_key else {"token_hash": token_hash}
    row = (await session.execute(statement, parameters)).one_or_none()
    if row is None:
        raise Unauthenticated
    held = _split(row[0])
    return held & frozenset(row[1]) if is_key else held


def needs_touch(caller: AuthContext) -> bool:
    return abs(datetime.now(UTC) - caller.last_used_at) > _TOUCH_AFTER


async def touch(database: Database, caller: AuthContext) -> None:
    """Record that a session or a key is in use, after the response: no request waits for it."""
    statement = update(LoginSession).where(LoginSession.id == caller.session_id)
    if caller.api_key_id is not None:
        statement = update(ApiKey).where(ApiKey.id == caller.api_key_id)
    try:
        async with database.writers.begin() as session:
            await session.execute(statement.values(last_used_at=datetime.now(UTC)))
    except SQLAlchemyError as error:
        logger.warning("Cannot record the use of a session: %s", getattr(error, "orig", error))
