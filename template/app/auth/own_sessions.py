"""What users do with their own login sessions."""

from sqlalchemy import and_, delete
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import audit
from app.auth.models import LoginSession
from app.auth.sessions import AuthContext, log_end, reauthenticate, revoke_all
from app.core.errors import NotFound


async def revoke(session: AsyncSession, caller: AuthContext, session_id: int) -> bool:
    """End one session of the caller; False if they have none with this id."""
    one = and_(LoginSession.user_id == caller.user_id, LoginSession.id == session_id)
    ended = await session.scalars(delete(LoginSession).where(one).returning(LoginSession.id))
    if not ended.all():
        return False
    log_end(session, caller, session_id, caller.user_id, caller.username)
    return True


async def revoke_own(session: AsyncSession, caller: AuthContext, session_id: int) -> None:
    await reauthenticate(session, caller)
    if not await revoke(session, caller, session_id):
        raise NotFound(f"You have no session {session_id}.")


async def revoke_others(session: AsyncSession, caller: AuthContext) -> None:
    await reauthenticate(session, caller)
    await revoke_all(session, caller.user_id, keep=caller.session_id)
    target = audit.Target("users", caller.user_id, caller.username)
    audit.record(session, caller, "sessions_revoked", target)
