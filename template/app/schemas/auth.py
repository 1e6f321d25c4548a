from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.user import Email, Line, Password, Username

NewPermissionName = Annotated[str, Field(pattern=r"^[a-z0-9_-]+(:[a-z0-9_-]+)*$", max_length=64)]


class TokenRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  (RFC 6750's name for it)
    expires_at: datetime


class PasswordChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    # Of any length: it may be older than the rules of today.
    current_password: Annotated[str, Field(max_length=256)]
    new_password: Password


class NewPassword(BaseModel):
    password: Password


class SessionRead(BaseModel):
    id: int
    created_at: datetime
    last_used_at: datetime
    address: str
    user_agent: str
    is_current: bool


class AccountUpdate(BaseModel):
    """What people may change of their own account; null leaves it as it is."""

    model_config = ConfigDict(extra="forbid")

    username: Username | None = None
    email: Email | None = None


class UserPermissions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    permissions: Annotated[list[NewPermissionName], Field(max_length=1000)]


class PermissionCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: NewPermissionName
    description: Line = ""


class PermissionUpdate(BaseModel):
    """Null leaves it as it is."""

    model_config = ConfigDict(extra="forbid")

    name: NewPermissionName | None = None
    description: Line | None = None
