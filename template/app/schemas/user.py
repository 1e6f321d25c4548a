from pydantic import BaseModel

from app.core.types import Email, Password, Username


class PermissionRead(BaseModel, from_attributes=True):
    id: int
    name: str
    description: str


class UserCreate(BaseModel, extra="forbid"):
    username: Username
    email: Email
    # Required if REGISTRATION is closed. Otherwise, without one, an email lets the user choose it.
    password: Password | None = None


class UserUpdate(BaseModel, extra="forbid"):
    """Changes to a user. A missing or null field stays as it is."""

    username: Username | None = None
    email: Email | None = None
    is_active: bool | None = None
    password: Password | None = None


class UserRead(BaseModel, from_attributes=True):
    id: int
    username: str
    email: str
    is_active: bool
    permissions: list[PermissionRead]
