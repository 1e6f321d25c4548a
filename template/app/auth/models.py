"""The tables of the login, and how old rows leave them.

The tables of users and permissions are in app/models/user.py.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from app.core.seed_data import register_seed_rows
from app.core.types import BigInt
from app.db.base import Base
from app.permissions import PermissionName


class LoginSession(Base):
    """A user who is logged in on some device. Of the token, only a hash is stored."""

    __tablename__ = "sessions"
    __table_args__ = (
        CheckConstraint("length(token_hash) = 64", "token_hash_length"),
        CheckConstraint("length(address) <= 64", "address_length"),
        CheckConstraint("length(user_agent) <= 200", "user_agent_length"),
    )

    user_id: Mapped[int] = mapped_column(
        BigInt, ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime] = mapped_column(index=True)
    # These two help users to recognize their sessions.
    address: Mapped[str] = mapped_column(String(64))
    user_agent: Mapped[str] = mapped_column(String(200))


class ApiKey(Base):
    """Lets a program act as a user, with some of the user's permissions. Only a hash is stored."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("length(token_hash) = 64", "token_hash_length"),
        CheckConstraint("length(name) <= 100", "name_length"),
    )

    user_id: Mapped[int] = mapped_column(
        BigInt, ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    # Names of permissions. Those that the user has lost don't count.
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]


class Throttle(Base):
    """Counts the attempts on one name, or from one client address, or marks a network as known.

    Only hashes are stored.
    """

    __tablename__ = "throttles"
    __table_args__ = (
        CheckConstraint("length(key_hash) = 64", "key_hash_length"),
        # These ids are not public.
        {"sqlite_autoincrement": False},
    )

    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    attempts: Mapped[int]
    # For a name, the time of the last attempt: each one starts the wait again. For an address, the
    # time of the first attempt in the current window. A network is known until this time.
    timer_started_at: Mapped[datetime] = mapped_column("since", index=True)


class AuditEvent(Base):
    """One change: who made it, to what, when and from where.

    It has copies of names, and ids without foreign keys, because it outlives what it names.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        CheckConstraint("length(action) <= 64", "action_length"),
        CheckConstraint("length(actor_name) <= 64", "actor_name_length"),
        CheckConstraint("length(command) <= 64", "command_length"),
        CheckConstraint("length(target_type) <= 64", "target_type_length"),
        CheckConstraint("length(target_name) <= 255", "target_name_length"),
        CheckConstraint("length(address) <= 64", "address_length"),
        CheckConstraint("length(request_id) <= 128", "request_id_length"),
        # One for each filter, in the order of the list.
        Index(None, "created_at", "id"),
        Index(None, "actor_id", "created_at", "id"),
        Index(None, "target_type", "target_id", "created_at", "id"),
    )

    created_at: Mapped[datetime]
    action: Mapped[str] = mapped_column(String(64))
    # A user. A command has none, and names the operating system's user. The use of a link in an
    # email has none either, and names "anonymous".
    actor_id: Mapped[int | None] = mapped_column(BigInt)
    actor_name: Mapped[str] = mapped_column(String(64))
    session_id: Mapped[int | None] = mapped_column(BigInt)
    api_key_id: Mapped[int | None] = mapped_column(BigInt)
    command: Mapped[str | None] = mapped_column(String(64))
    # The table and the id of the row that was changed.
    target_type: Mapped[str] = mapped_column(String(64))
    target_id: Mapped[int] = mapped_column(BigInt)
    target_name: Mapped[str] = mapped_column(String(255))
    # Names of fields or permissions, never values: {"changed": ["email"]}.
    changes: Mapped[dict[str, list[str]]] = mapped_column(JSON)
    address: Mapped[str | None] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(128))


class OutgoingMail(Base):
    """An email that waits to be sent. Its row is deleted when the mail server has accepted it."""

    __tablename__ = "outgoing_mails"
    __table_args__ = (
        CheckConstraint("length(recipient) <= 254", "recipient_length"),
        CheckConstraint("length(template) <= 64", "template_length"),
        CheckConstraint("length(last_error) <= 500", "last_error_length"),
    )

    recipient: Mapped[str] = mapped_column(String(254))
    # The name of files in app/mails, and what their placeholders stand for.
    template: Mapped[str] = mapped_column(String(64))
    variables: Mapped[dict[str, str]] = mapped_column(JSON)
    queued_at: Mapped[datetime] = mapped_column(index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    # Without this time, the email is no longer sent. In development, it never was.
    next_attempt_at: Mapped[datetime | None] = mapped_column(index=True)
    last_error: Mapped[str | None] = mapped_column(String(500))


class Purpose(StrEnum):
    """What the link with a token does."""

    RESET_PASSWORD = "reset_password"  # noqa: S105  (no password)
    INVITATION = "invitation"
    REGISTER = "register"
    CHANGE_EMAIL = "change_email"
    RESTORE_EMAIL = "restore_email"


class OneTimeToken(Base):
    """The token of a link in an email, which acts once. Only a hash is stored.

    The link with which a new user registers has no user yet.
    """

    __tablename__ = "one_time_tokens"
    __table_args__ = (
        CheckConstraint("length(purpose) <= 32", "purpose_length"),
        CheckConstraint("length(token_hash) = 64", "token_hash_length"),
        CheckConstraint("length(email) <= 254", "email_length"),
        # These ids are not public.
        {"sqlite_autoincrement": False},
    )

    user_id: Mapped[int | None] = mapped_column(
        BigInt, ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    purpose: Mapped[str] = mapped_column(String(32))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    # The address that the link was sent to.
    email: Mapped[str] = mapped_column(String(254), index=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


async def delete_oldest(
    session: AsyncSession, column: InstrumentedAttribute[datetime], before: datetime, limit: int
) -> None:
    """Delete rows whose time in this column is before that one: the oldest, and few at once.

    So no request takes long. It skips rows that another one has locked, to avoid a deadlock.
    """
    model: Any = column.class_
    oldest = select(model.id).where(column < before).order_by(column).limit(limit)
    unlocked = oldest.with_for_update(skip_locked=True)
    await session.execute(delete(model).where(model.id.in_(unlocked)))


# `alembic upgrade head` adds the missing ones.
register_seed_rows(
    Base.metadata,
    "permissions",
    "name",
    [{"name": name.value, "description": name.description} for name in PermissionName],
)
