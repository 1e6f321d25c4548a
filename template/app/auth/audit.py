"""The audit trail: who changed what, when and from where.

Each route and command that changes a user, a permission or a login session calls `record`.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Select, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.authentication import AuthContext
from app.auth.models import AuditEvent, delete_oldest
from app.auth.schemas import normalize_login
from app.core.errors import NotFound
from app.core.logging import client_address, command, os_user, request_id
from app.models.user import User
from app.settings import Settings

# A login adds one event, and so do the changes that follow it. Deleting this many old ones with
# each login keeps up with them, and takes no login long.
_MAX_DELETED = 100
# Into the table, which costs half as much as the ORM: every change adds an event.
_INSERT = insert(AuditEvent.metadata.tables[AuditEvent.__tablename__])


class Target(NamedTuple):
    """What was changed: `Target("books", book.id, book.title)`."""

    type: str
    id: int
    name: str


async def record(
    session: AsyncSession,
    caller: AuthContext | None,
    action: str,
    target: Target,
    **changes: Iterable[str],
) -> None:
    """Add an event to the transaction of a change: either both are committed, or neither is.

    `changes` has names of fields, never values: `changed=["title"]`. Without a caller, it was a
    command, or someone without a login.
    """
    default_name = os_user.get() or "anonymous"
    event = {
        "created_at": datetime.now(UTC),
        "action": action,
        "actor_id": caller.user_id if caller else None,
        "actor_name": caller.username if caller else _storable(default_name, 64),
        "session_id": caller.session_id if caller else None,
        "api_key_id": caller.api_key_id if caller else None,
        "command": command.get(),
        "target_type": target.type,
        "target_id": target.id,
        "target_name": _storable(target.name, 255),
        "changes": {name: list(values) for name, values in changes.items()},
        "address": (client_address.get() or "")[:64] or None,
        "request_id": request_id.get(),
    }
    await session.execute(_INSERT, event)


def target_user(user: User) -> Target:
    return Target("users", user.id, user.username)


def _storable(name: str, length: int) -> str:
    # The name of a user of the operating system may have bytes that are not UTF-8.
    return name.encode("utf-8", "replace").decode()[:length]


def filter_events(
    actor_id: int | None, target_type: str, target_id: int | None, since: datetime | None
) -> Select[AuditEvent]:
    """The events, unordered. Each filter has an index, in the order of time. None means all."""
    statement = select(AuditEvent)
    if actor_id is not None:
        statement = statement.where(AuditEvent.actor_id == actor_id)
    if target_id is not None:
        statement = statement.where(
            AuditEvent.target_type == target_type, AuditEvent.target_id == target_id
        )
    if since is not None:
        statement = statement.where(AuditEvent.created_at >= since)
    return statement


async def find_user_id(session: AsyncSession, username: str) -> int:
    """The id of the user with this name, or of the last one who had it. Otherwise NotFound."""
    name = normalize_login(username) or ""
    user_id = await session.scalar(select(User.id).where(User.username == name))
    if user_id is None:
        event = select(AuditEvent.target_id).where(
            AuditEvent.target_type == "users", AuditEvent.target_name == name
        )
        user_id = await session.scalar(event.order_by(AuditEvent.id.desc()).limit(1))
    if user_id is None:
        raise NotFound("User not found.")
    return user_id


def describe(event: AuditEvent) -> str:
    """One line for a terminal."""
    fields = [
        event.created_at.isoformat(timespec="seconds"),
        event.actor_name + (f" ({event.command})" if event.command else ""),
        event.action,
        f"{event.target_type}/{event.target_id} {event.target_name}",
        " ".join(f"{name}={','.join(values)}" for name, values in event.changes.items() if values)
        or "-",
        event.address or "-",
        event.request_id or "-",
    ]
    # A name could have characters that change what a terminal shows.
    return "\t".join("".join(c if c.isprintable() else "?" for c in field) for field in fields)


async def delete_expired(session: AsyncSession, settings: Settings, now: datetime) -> None:
    kept_since = now - timedelta(days=settings.audit_retention_days)
    await delete_oldest(session, AuditEvent.created_at, kept_since, _MAX_DELETED)
