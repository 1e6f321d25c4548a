"""Bodies of requests and responses. Those of users are in app/schemas/user.py."""

from datetime import datetime
from typing import Annotated, Literal

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from app.core.errors import FieldError, Invalid
from app.core.types import Email, Password, ShortText, Username, normalize_name

_USERNAME: TypeAdapter[str] = TypeAdapter(Username)
_EMAIL: TypeAdapter[str] = TypeAdapter(Email)


def normalize_email(email: str) -> str:
    """An email address as it is stored; Invalid if it cannot exist. Sends no DNS query."""
    try:
        found = validate_email(email, check_deliverability=False)
        return _EMAIL.validate_python(found.normalized)
    except (EmailNotValidError, ValidationError):
        # The messages of the library quote the address.
        reason = "Enter an address that can receive email, such as ada@example.com."
        raise Invalid([FieldError(["body", "email"], reason, "email")]) from None


def normalize_login(login: str) -> str | None:
    """A typed username or email address as it is stored; None if it cannot be either."""
    try:
        if "@" in login:
            return normalize_email(_EMAIL.validate_python(login))
        return _USERNAME.validate_python(login)
    except (Invalid, ValidationError):
        return None


# Part of a username or an email address, spelled as those are stored. An empty one finds everyone.
UserSearchText = Annotated[ShortText, Field(max_length=100), BeforeValidator(normalize_name)]

# The token of a link in an email.
TokenText = Annotated[str, Field(max_length=100, json_schema_extra={"format": "password"})]


def _reject_scope(scope: str) -> str:
    if scope.strip():
        raise PydanticCustomError(
            "scope_not_empty", "Leave scope empty: a token has the permissions of its user."
        )
    return scope


class LoginForm(BaseModel):
    """The form of the OAuth 2.0 password grant (RFC 6749, section 4.3)."""

    grant_type: Annotated[str | None, Field(pattern="^password$")] = None
    username: Annotated[str, Field(description="A username or an email address.")]
    password: Annotated[str, Field(json_schema_extra={"format": "password"})]
    scope: Annotated[str, AfterValidator(_reject_scope)] = ""


class TokenRead(BaseModel):
    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  (RFC 6750's name for it)
    expires_at: datetime


class PasswordChange(BaseModel, extra="forbid"):
    # Of any length: it may be older than today's rules.
    current_password: Annotated[str, Field(max_length=256)]
    new_password: Password


# The longest life of an API key.
MAX_KEY_DAYS = 365

PermissionNames = Annotated[
    list[Annotated[str, Field(pattern=r"^[a-z0-9_-]+(:[a-z0-9_-]+)*$", max_length=64)]],
    Field(max_length=1000),
]


class ApiKeyCreate(BaseModel, extra="forbid"):
    name: Annotated[ShortText, Field(min_length=1, max_length=100)]
    scopes: Annotated[PermissionNames, Field(description="Permissions that you hold.")]
    expires_in_days: Annotated[int, Field(ge=1, le=MAX_KEY_DAYS)] = 90


class ApiKeyRead(BaseModel, from_attributes=True):
    id: int
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


class NewApiKeyRead(ApiKeyRead):
    key: Annotated[str, Field(description="Shown only now.")]


class LinkRequest(BaseModel, extra="forbid"):
    email: Annotated[Email, AfterValidator(normalize_email)]


class PasswordReset(BaseModel, extra="forbid"):
    token: TokenText
    new_password: Password


class EmailConfirmation(BaseModel, extra="forbid"):
    token: TokenText


class Registration(BaseModel, extra="forbid"):
    token: TokenText
    username: Username
    password: Password


class LoginSessionRead(BaseModel):
    id: int
    created_at: datetime
    last_used_at: datetime
    address: str
    user_agent: str
    is_current: bool


class AuditEventRead(BaseModel, from_attributes=True):
    id: int
    created_at: datetime
    action: str
    actor_id: Annotated[int | None, Field(description="The user; null for a command or a link.")]
    actor_name: str
    session_id: int | None
    api_key_id: int | None
    command: str | None
    target_type: str
    target_id: int
    target_name: str
    changes: Annotated[dict[str, list[str]], Field(description="Names, never values.")]
    address: str | None
    request_id: str | None


class OwnUserUpdate(BaseModel, extra="forbid"):
    """What users may change about themselves. A missing or null field stays as it is."""

    username: Username | None = None
    email: Email | None = None


class UserFilters(BaseModel):
    order: Literal["id", "-id"] = "id"
    q: Annotated[
        UserSearchText | None,
        Field(
            description="Part of a username or an email address. One or two letters are only found "
            "at the start."
        ),
    ] = None


class UserPermissions(BaseModel, extra="forbid"):
    permissions: PermissionNames
