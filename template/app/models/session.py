from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, BigInt


class AuthSession(Base):
    """Somebody who is logged in. Of the token, only its digest is stored."""

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
    # By these, users tell their sessions apart.
    address: Mapped[str] = mapped_column(String(64))
    user_agent: Mapped[str] = mapped_column(String(200))


class Throttle(Base):
    """How often somebody has tried to log in: as an account or from an address, both hashed."""

    __tablename__ = "throttles"
    __table_args__ = (CheckConstraint("length(key_hash) = 64", "key_hash_length"),)

    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    attempts: Mapped[int]
    # Of an account, the time of the last attempt; of an address, when the current window began.
    since: Mapped[datetime] = mapped_column(index=True)
