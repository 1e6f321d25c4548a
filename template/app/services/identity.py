"""Who is asking: what every request with a token looks up first."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, bindparam, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database
from app.models.session import AuthSession
from app.models.user import Permission, User, user_permissions
from app.security import digest
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
    logged_in_at: datetime
    last_used_at: datetime
    permissions: frozenset[str]


# Neither unused nor old; nor from so far in the future that it would live on and on.
IS_LIVE = and_(
    AuthSession.created_at.between(bindparam("oldest"), bindparam("youngest")),
    AuthSession.last_used_at.between(bindparam("unused_since"), bindparam("used_at_most")),
)

# Token to session to user to permissions, in the statement that every request needs. Of tables,
# and made once: of models, and made by each request, it would take twice as long.
users, sessions, permissions = User.__table__, AuthSession.__table__, Permission.__table__
WHO = (
    select(
        users.c.id,
        users.c.username,
        users.c.email,
        sessions.c.id,
        sessions.c.created_at,
        sessions.c.last_used_at,
        permissions.c.name,
    )
    .join_from(sessions, users, users.c.id == sessions.c.user_id)
    .outerjoin(user_permissions, user_permissions.c.user_id == users.c.id)
    .outerjoin(permissions, permissions.c.id == user_permissions.c.permission_id)
    .where(sessions.c.token_hash == bindparam("token_hash"), IS_LIVE, users.c.is_active)
)


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
    rows = (await session.execute(WHO, parameters)).all()
    if not rows:
        return None
    names = frozenset(row[-1] for row in rows if row[-1] is not None)
    return Identity(*rows[0][:-1], names)


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
