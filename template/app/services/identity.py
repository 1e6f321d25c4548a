"""Who is asking: what every request with a token looks up first."""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, bindparam, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database
from app.models.session import AuthSession
from app.models.user import Permission, User, user_permissions
from app.security import Unauthenticated, digest
from app.settings import Settings

logger = logging.getLogger(__name__)

# `last_used_at` is this exact and no more, so that most requests write nothing.
TOUCH_AFTER = timedelta(minutes=5)


@dataclass(frozen=True)
class Identity:
    """Who is asking, and what they may do at this moment."""

    user_id: int
    username: str
    email: str
    session_id: int
    token_hash: str = field(repr=False)
    logged_in_at: datetime
    last_used_at: datetime
    permissions: frozenset[str]


# Neither idle nor too old, nor dated far ahead by a clock that was wrong: it would never end.
IS_LIVE = and_(
    AuthSession.created_at.between(bindparam("oldest"), bindparam("youngest")),
    AuthSession.last_used_at.between(bindparam("unused_since"), bindparam("used_at_most")),
)

# Token to session to user to permissions: the one statement that every request with a token needs.
# Built once, and from tables: an ORM query that each request builds takes twice as long.
users, sessions, permissions = User.__table__, AuthSession.__table__, Permission.__table__
# ASCII's unit separator, which stands in no name.
SEPARATOR = "\x1f"
NAMES = (
    select(func.aggregate_strings(permissions.c.name, SEPARATOR))
    .join_from(permissions, user_permissions)
    .where(user_permissions.c.user_id == users.c.id)
    .scalar_subquery()
)
HAS_TOKEN = and_(
    sessions.c.token_hash == bindparam("token_hash"),
    users.c.id == sessions.c.user_id,
    users.c.is_active,
)
IDENTITY_QUERY = select(
    users.c.id,
    users.c.username,
    users.c.email,
    sessions.c.id,
    sessions.c.token_hash,
    sessions.c.created_at,
    sessions.c.last_used_at,
    NAMES,
).where(HAS_TOKEN, IS_LIVE)
# Everywhere before their sessions and throttles, or two changes could wait for each other.
LOCK_USERS = (
    select(users.c.id)
    .where(users.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(users.c.id)
    .with_for_update()
)
# PostgreSQL keeps the session from ending before the change that relies on it is committed.
CONFIRMATION_QUERY = select(NAMES).where(HAS_TOKEN).with_for_update(read=True, of=sessions)


def lifetimes(settings: Settings) -> dict[str, datetime]:
    """What IS_LIVE asks for."""
    now = datetime.now(UTC)
    idle = timedelta(days=settings.session_idle_days)
    absolute = timedelta(days=settings.session_absolute_days)
    return {
        "oldest": now - absolute,
        "youngest": now + absolute,
        "unused_since": now - idle,
        "used_at_most": now + idle,
    }


async def identify(session: AsyncSession, settings: Settings, token: str) -> Identity | None:
    """Who has this token, and what they may do at this moment."""
    parameters = {"token_hash": digest(token), **lifetimes(settings)}
    row = (await session.execute(IDENTITY_QUERY, parameters)).one_or_none()
    return row and Identity(*row[:-1], split(row[-1]))


def locks_rows(session: AsyncSession) -> bool:
    """Not SQLite: a transaction that writes has its only lock already."""
    return session.get_bind().dialect.name != "sqlite"


async def confirm_session(
    session: AsyncSession, actor: Identity, target: int | None = None
) -> frozenset[str]:
    """What an actor may do by now; Unauthenticated if their session has ended.

    For the transaction of a change, which may have waited for its turn since the actor was let in.
    From here on, no other one changes the actor's account, or that of the target.
    """
    if locks_rows(session):
        await session.execute(LOCK_USERS, {"ids": [actor.user_id, target or actor.user_id]})
    parameters = {"token_hash": actor.token_hash}
    row = (await session.execute(CONFIRMATION_QUERY, parameters)).one_or_none()
    if row is None:
        raise Unauthenticated
    return split(row[0])


def split(names: str | None) -> frozenset[str]:
    return frozenset(names.split(SEPARATOR) if names else ())


def needs_touch(identity: Identity) -> bool:
    return abs(datetime.now(UTC) - identity.last_used_at) > TOUCH_AFTER


async def touch(database: Database, identity: Identity) -> None:
    """Note that a session is in use: after the response, so that no request waits to write it."""
    statement = update(AuthSession).where(AuthSession.id == identity.session_id)
    try:
        async with database.writers.begin() as session:
            await session.execute(statement.values(last_used_at=datetime.now(UTC)))
    except SQLAlchemyError as error:
        logger.warning("A session's use could not be noted: %s", getattr(error, "orig", error))
