"""What the replicas of other templates share: the mapped tables and the response schemas."""

from typing import Any

from pydantic import BaseModel, ConfigDict, EmailStr
from sqlalchemy import Column, ForeignKey, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

# Long enough for HS256. Every replica signs JSON Web Tokens.
KEY = "0" * 32
ALGORITHM = "HS256"


class Base(DeclarativeBase):
    pass


links = Table(
    "user_permissions",
    Base.metadata,
    Column("user_id", ForeignKey("users.id"), primary_key=True),
    Column("permission_id", ForeignKey("permissions.id"), primary_key=True),
)


class Permission(Base):
    __tablename__ = "permissions"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    description: Mapped[str]


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str]
    email: Mapped[str]
    password: Mapped[str]
    is_active: Mapped[bool]
    permissions: Mapped[list[Permission]] = relationship(secondary=links)


class PermissionRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    description: str


# All three check an address with EmailStr, in what they read as in what they answer.
class UserRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    username: str
    email: EmailStr
    is_active: bool
    permissions: list[PermissionRead]


class UserCreate(BaseModel):
    username: str
    email: EmailStr
    password: str


def hashed(_: str) -> str:
    """Hashing is left out everywhere: it would be all that is measured."""
    return "!"


def may(user: User, name: str) -> bool:
    return any(permission.name == name for permission in user.permissions)


def columns(user: User) -> dict[str, Any]:
    return {name: getattr(user, name) for name in ("id", "username", "email", "is_active")}
