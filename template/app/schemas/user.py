import unicodedata
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

# The longest e-mail address (RFC 5321). What is longer is not folded, since the time for that grows
# with the square of the length, but refused as it is.
LONGEST_EMAIL = 254


def fold_name(text: object) -> object:
    """One spelling for what people take for the same (NFKC, case-folded, trimmed).

    A domain is in lower case only: folded, straße.de would be strasse.de, which is another one.
    """
    if not isinstance(text, str) or len(text) > LONGEST_EMAIL:
        return text
    name, at, domain = unicodedata.normalize("NFKC", text).strip().partition("@")
    return f"{name.casefold()}{at}{domain.lower()}"


# No control characters, and none that turn the direction of the text around them.
UNSEEN = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
Line = Annotated[str, Field(pattern=rf"^[^{UNSEEN}]*$", max_length=255)]
# The published schema says what to send; what is folded here is taken, too.
Username = Annotated[
    str,
    BeforeValidator(fold_name),
    Field(pattern=r"^[a-z0-9._-]{3,32}$"),
    WithJsonSchema({"type": "string", "description": "3 to 32 of a-z, 0-9, dot, _ and -"}),
]
Email = Annotated[
    str,
    BeforeValidator(fold_name),
    Field(pattern=rf"^[^@\s{UNSEEN}]+@[^@\s{UNSEEN}]+\.[^@\s{UNSEEN}]+$", max_length=LONGEST_EMAIL),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": LONGEST_EMAIL}),
]
# Long ones are taken whole, short ones never (OWASP Authentication cheat sheet).
Password = Annotated[str, Field(min_length=8, max_length=256)]


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
    """What an administrator may change; null leaves it as it is."""

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
