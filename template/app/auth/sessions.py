"""Login sessions: how they begin and end."""

import logging
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import audit, links
from app.auth.authentication import (
    IS_LIVE,
    TOKEN,
    TOKEN_PREFIX,
    hash_token,
    lifetimes,
    reauthenticate,
)
from app.auth.authentication import AuthContext as AuthContext
from app.auth.authentication import Client as Client
from app.auth.authentication import authenticate as authenticate
from app.auth.models import ApiKey, LoginSession, Purpose, delete_oldest
from app.auth.schemas import TokenRead
from app.core.errors import NotFound
from app.models.user import User
from app.settings import Settings

logger = logging.getLogger(__name__)

MAX_SESSIONS = 20
# Expired sessions are kept for a while, so that a clock that runs ahead deletes no valid ones.
_DELETE_AFTER = timedelta(days=30)
# A login deletes at most this many, so that none takes long after many have expired.
_MAX_DELETED = 100


async def create_login_session(
    session: AsyncSession, settings: Settings, user_id: int, client: Client
) -> TokenRead:
    """Begin a session. Ends the client's previous one, and the user's oldest over the limit."""
    now, token = datetime.now(UTC), f"{TOKEN_PREFIX}{secrets.token_urlsafe(32)}"
    # A link for a new password has become useless to its user, but not to others.
    await links.end(session, user_id, Purpose.RESET_PASSWORD)
    unused_since = now - timedelta(days=settings.session_idle_days) - _DELETE_AFTER
    await delete_oldest(session, LoginSession.last_used_at, unused_since, _MAX_DELETED)
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
    caller = AuthContext(
        user_id=user.id,
        username=user.username,
        email=user.email,
        session_id=new.id,
        token_hash=new.token_hash,
        logged_in_at=now,
        last_used_at=now,
        permissions=frozenset(),
    )
    await audit.record(session, caller, "login", audit.target_user(user))
    await _end_previous(session, caller, client)
    own = LoginSession.user_id == user_id
    newest = select(LoginSession.id).where(own).order_by(LoginSession.id.desc()).limit(MAX_SESSIONS)
    await session.execute(delete(LoginSession).where(own, LoginSession.id.not_in(newest)))
    expires_at = now + timedelta(days=settings.session_absolute_days)
    return TokenRead(access_token=token, expires_at=expires_at)


async def _end_previous(session: AsyncSession, caller: AuthContext, client: Client) -> None:
    """End the session whose token the client sent (ASVS 7.2.4), even if it is another user's."""
    if client.token is None or not TOKEN.fullmatch(client.token):
        return
    previous = delete(LoginSession).where(LoginSession.token_hash == hash_token(client.token))
    ended = previous.returning(LoginSession.id, LoginSession.user_id)
    for session_id, user_id in (await session.execute(ended)).all():
        user = await session.get_one(User, user_id)
        await _log_end(session, caller, session_id, user.id, user.username)


async def list_login_sessions(
    session: AsyncSession, settings: Settings, user_id: int
) -> list[LoginSession]:
    statement = select(LoginSession).where(LoginSession.user_id == user_id, IS_LIVE)
    found = await session.scalars(statement.order_by(LoginSession.id), lifetimes(settings))
    return list(found)


async def _log_end(
    session: AsyncSession, caller: AuthContext, session_id: int, user_id: int, username: str
) -> None:
    await audit.record(session, caller, "logout", audit.Target("sessions", session_id, username))
    logger.info("Logged out", extra={"event": "logout", "target_user_id": user_id})


async def revoke_all(session: AsyncSession, user_id: int, *, keep: int | None = None) -> None:
    """End all sessions of a user and delete their API keys, or end all sessions but one."""
    statement = delete(LoginSession).where(LoginSession.user_id == user_id)
    if keep is not None:
        statement = statement.where(LoginSession.id != keep)
    else:
        # Otherwise, an attacker who had created a key would still have access.
        await session.execute(delete(ApiKey).where(ApiKey.user_id == user_id))
    await session.execute(statement)
    # A stolen session may have sent it to an address of the thief.
    await links.end(session, user_id, Purpose.CHANGE_EMAIL)
    fields = {"event": "sessions_revoked", "target_user_id": user_id}
    logger.info("Logged out everywhere", extra=fields)


async def revoke(session: AsyncSession, caller: AuthContext, session_id: int | None) -> bool:
    """End one session of the caller; False if they have none with this id."""
    one = and_(LoginSession.user_id == caller.user_id, LoginSession.id == session_id)
    ended = await session.scalars(delete(LoginSession).where(one).returning(LoginSession.id))
    found = ended.all()
    for ended_id in found:
        await _log_end(session, caller, ended_id, caller.user_id, caller.username)
    return bool(found)


async def revoke_own(session: AsyncSession, caller: AuthContext, session_id: int) -> None:
    await reauthenticate(session, caller)
    if not await revoke(session, caller, session_id):
        raise NotFound(f"You have no session {session_id}.")
    await links.end(session, caller.user_id, Purpose.CHANGE_EMAIL)


async def revoke_others(session: AsyncSession, caller: AuthContext) -> None:
    await reauthenticate(session, caller)
    await revoke_all(session, caller.user_id, keep=caller.session_id)
    target = audit.Target("users", caller.user_id, caller.username)
    await audit.record(session, caller, "sessions_revoked", target)
