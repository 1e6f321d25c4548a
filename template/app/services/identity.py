"""Who is asking: what every request with a token looks up first."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, select, update
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


def is_live(settings: Settings, now: datetime) -> ColumnElement[bool]:
    """Neither unused nor old; nor from so far in the future that it would live on and on."""
    idle = timedelta(days=settings.session_idle_days)
    absolute = timedelta(days=settings.session_absolute_days)
    return and_(
        AuthSession.created_at.between(now - absolute, now + absolute),
        AuthSession.last_used_at.between(now - idle, now + idle),
    )


async def identify(session: AsyncSession, settings: Settings, token: str) -> Identity | None:
    """Token to session to user to permissions: one statement, as every request needs it."""
    statement = (
        select(
            User.id,
            User.username,
            User.email,
            AuthSession.id,
            AuthSession.created_at,
            AuthSession.last_used_at,
            Permission.name,
        )
        .join(AuthSession, AuthSession.user_id == User.id)
        .outerjoin(user_permissions, user_permissions.c.user_id == User.id)
        .outerjoin(Permission, Permission.id == user_permissions.c.permission_id)
        .where(
            AuthSession.token_hash == digest(token),
            is_live(settings, datetime.now(UTC)),
            User.is_active,
        )
    )
    rows = (await session.execute(statement)).all()
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
