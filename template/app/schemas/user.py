from pydantic import BaseModel, ConfigDict

from app.core.types import Email, Password, Username


class PermissionRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    description: str


class UserCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    username: Username
    email: Email
    # Required if REGISTRATION is closed. Otherwise, without one, an email lets the user choose it.
    password: Password | None = None


class UserUpdate(BaseModel):
    """Changes to a user. A missing or null field stays as it is."""

    model_config = ConfigDict(extra="forbid")

    username: Username | None = None
    email: Email | None = None
    is_active: bool | None = None
    password: Password | None = None


class UserRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    username: str
    email: str
    is_active: bool
    permissions: list[PermissionRead]
