"""Sessions: how they begin, how their user sees them, and how they end."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import NotFound
from app.models.session import AuthSession
from app.security import digest, new_token
from app.services.identity import IS_LIVE, Identity, confirm_session, lifetimes
from app.settings import Settings

logger = logging.getLogger(__name__)

MOST_SESSIONS = 20
# A clock that runs ahead for a while ends sessions, but does not delete them at once.
DELETED_AFTER = timedelta(days=30)


@dataclass(frozen=True)
class Client:
    """Where a log-in comes from."""

    address: str
    user_agent: str


@dataclass(frozen=True)
class IssuedToken:
    access_token: str
    expires_at: datetime


async def open_session(
    session: AsyncSession, settings: Settings, user_id: int, client: Client
) -> IssuedToken:
    """A new session; the oldest ones of the user beyond the most that one may have end."""
    now, token = datetime.now(UTC), new_token()
    newest = (
        select(AuthSession.id)
        .where(AuthSession.user_id == user_id)
        .order_by(AuthSession.id.desc())
        .limit(MOST_SESSIONS - 1)
    )
    surplus = and_(AuthSession.user_id == user_id, AuthSession.id.not_in(newest))
    await session.execute(delete(AuthSession).where(surplus))
    unused = timedelta(days=settings.session_idle_days) + DELETED_AFTER
    expired = select(AuthSession.id).where(AuthSession.last_used_at < now - unused)
    # Not those that their own user is about to end: each could wait for the other.
    free = expired.with_for_update(skip_locked=True)
    await session.execute(delete(AuthSession).where(AuthSession.id.in_(free)))
    session.add(
        AuthSession(
            user_id=user_id,
            token_hash=digest(token),
            created_at=now,
            last_used_at=now,
            address=client.address[:64],
            user_agent=client.user_agent[:200],
        )
    )
    await session.flush()
    return IssuedToken(token, now + timedelta(days=settings.session_absolute_days))


async def list_sessions(
    session: AsyncSession, settings: Settings, user_id: int
) -> list[AuthSession]:
    mine = select(AuthSession).where(AuthSession.user_id == user_id, IS_LIVE)
    found = await session.scalars(mine.order_by(AuthSession.id), lifetimes(settings))
    return list(found)


async def revoke_own(session: AsyncSession, actor: Identity, session_id: int) -> None:
    """End one of one's own sessions; NotFound if there is none of this id."""
    await confirm_session(session, actor)
    if not await revoke(session, actor.user_id, session_id):
        raise NotFound(f"You have no session {session_id}.")


async def revoke_others(session: AsyncSession, actor: Identity) -> None:
    await confirm_session(session, actor)
    await revoke_all(session, actor.user_id, keep=actor.session_id)


async def revoke(session: AsyncSession, user_id: int, session_id: int) -> bool:
    """End one session of a user; whether they had one of this id."""
    one = and_(AuthSession.user_id == user_id, AuthSession.id == session_id)
    ended = await session.scalars(delete(AuthSession).where(one).returning(AuthSession.id))
    if not ended.all():
        return False
    logger.info("Logged out", extra={"event": "logout", "subject": user_id})
    return True


async def revoke_all(session: AsyncSession, user_id: int, *, keep: int | None = None) -> None:
    those = delete(AuthSession).where(AuthSession.user_id == user_id)
    if keep is not None:
        those = those.where(AuthSession.id != keep)
    await session.execute(those)
    logger.info("Logged out everywhere", extra={"event": "sessions_revoked", "subject": user_id})
