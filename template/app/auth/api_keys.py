"""API keys: programs act as a user, with some of the user's permissions, until the key expires."""

import logging
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import audit
from app.auth.authentication import KEY_PREFIX, AuthContext, hash_token, reauthenticate
from app.auth.models import ApiKey
from app.auth.permissions import find_permissions
from app.auth.schemas import ApiKeyCreate
from app.core.errors import Conflict, NotFound, PermissionDenied

logger = logging.getLogger(__name__)

MAX_KEYS = 20


class TooManyKeys(Conflict):
    detail = f"You have {MAX_KEYS} API keys. Delete one first."


async def create_key(
    session: AsyncSession, caller: AuthContext, data: ApiKeyCreate
) -> tuple[ApiKey, str]:
    """A new key and its token, which is not stored."""
    held = await reauthenticate(session, caller)
    if not held.issuperset(data.scopes):
        await find_permissions(session, data.scopes, field="scopes")
        raise PermissionDenied("You can only give a key permissions that you hold yourself.")
    now = datetime.now(UTC)
    own = ApiKey.user_id == caller.user_id
    await session.execute(delete(ApiKey).where(own, ApiKey.expires_at < now))
    count = await session.scalar(select(func.count()).select_from(ApiKey).where(own))
    if (count or 0) >= MAX_KEYS:
        raise TooManyKeys
    token = f"{KEY_PREFIX}{secrets.token_urlsafe(32)}"
    key = ApiKey(
        user_id=caller.user_id,
        token_hash=hash_token(token),
        name=data.name,
        scopes=sorted({*data.scopes}),
        created_at=now,
        expires_at=now + timedelta(days=data.expires_in_days),
    )
    session.add(key)
    await session.flush()
    target = audit.Target("api_keys", key.id, key.name)
    await audit.record(session, caller, "api_key_created", target, scopes=key.scopes)
    logger.info("API key created", extra={"event": "api_key_created", "api_key_id": key.id})
    return key, token


async def list_keys(session: AsyncSession, user_id: int) -> list[ApiKey]:
    found = select(ApiKey).where(ApiKey.user_id == user_id).order_by(ApiKey.id)
    return [*await session.scalars(found)]


async def delete_key(session: AsyncSession, caller: AuthContext, key_id: int) -> None:
    await reauthenticate(session, caller)
    one = and_(ApiKey.user_id == caller.user_id, ApiKey.id == key_id)
    name = await session.scalar(delete(ApiKey).where(one).returning(ApiKey.name))
    if name is None:
        raise NotFound(f"You have no API key {key_id}.")
    await audit.record(session, caller, "api_key_deleted", audit.Target("api_keys", key_id, name))
    logger.info("API key deleted", extra={"event": "api_key_deleted", "api_key_id": key_id})
