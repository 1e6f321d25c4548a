import unicodedata
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def normalise(text: object) -> object:
    """One spelling for what people take for the same (NFKC, case-folded, trimmed)."""
    if isinstance(text, str):
        return unicodedata.normalize("NFKC", text).casefold().strip()
    return text


Username = Annotated[str, BeforeValidator(normalise), Field(pattern=r"^[a-z0-9._-]{3,32}$")]
Email = Annotated[
    str,
    BeforeValidator(normalise),
    Field(pattern=r"^[^@\s\p{C}]+@[^@\s\p{C}]+\.[^@\s\p{C}]+$", max_length=254),
]
# NIST SP 800-63B-4: at least 15 characters where a password is all there is, and no other rule.
Password = Annotated[str, Field(min_length=15, max_length=256)]


class PermissionRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    description: str


class UserCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    username: Username
    email: Email
    password: Password


class UserUpdate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    username: Username | None = None
    email: Email | None = None
    is_active: bool | None = None


class UserRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    username: str
    email: str
    is_active: bool
    permissions: list[PermissionRead]
