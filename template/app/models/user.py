from sqlalchemy import CheckConstraint, Column, ForeignKey, String, Table
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.core.types import BigInt
from app.db.base import Base

user_permissions = Table(
    "user_permissions",
    Base.metadata,
    Column("user_id", BigInt, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "permission_id",
        BigInt,
        ForeignKey("permissions.id", ondelete="CASCADE"),
        primary_key=True,
        # The primary key finds the permissions of a user; this finds the users of a permission.
        index=True,
    ),
)


class Permission(Base):
    __tablename__ = "permissions"
    # SQLite does not enforce the length of a String.
    __table_args__ = (
        CheckConstraint("length(name) <= 64", "name_length"),
        CheckConstraint("length(description) <= 255", "description_length"),
    )

    name: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[str] = mapped_column(String(255))


class User(Base):
    """Usernames and email addresses are stored normalized, so that unique means unique."""

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("length(username) <= 32", "username_length"),
        CheckConstraint("length(email) <= 254", "email_length"),
        CheckConstraint("length(password) <= 255", "password_length"),
    )

    username: Mapped[str] = mapped_column(String(32), unique=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    password: Mapped[str] = mapped_column(String(255))  # the hash, never the password
    is_active: Mapped[bool] = mapped_column(default=True)
    # Never loaded implicitly: a query that needs them uses `selectinload(User.permissions)`.
    permissions: Mapped[list[Permission]] = relationship(
        secondary=user_permissions, lazy="raise", order_by=Permission.name
    )
