"""The settings of the login."""

import re
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.policy import SMTP
from typing import Annotated, ClassVar, Literal
from urllib.parse import parse_qs, urlsplit

from annotated_types import Interval
from pydantic import AfterValidator, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

_MAX_MAIL_FROM_LENGTH = 320


# Without a query and a fragment, which a link adds.
_URL = re.compile(r"(https?)://([\w-]+(\.[\w-]+)*|\[[0-9a-fA-F:]+\])(:\d+)?(/[\w.~/-]*)?", re.ASCII)


def _validate_link_base(url: str, info: ValidationInfo) -> str:
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError("use an address such as https://www.example.com, without ? and #")
    if found[1] == "http" and info.data.get("environment") != "development":
        raise ValueError("use https: a link must not be readable on its way")
    return url.rstrip("/")


LinkBase = Annotated[str, AfterValidator(_validate_link_base)]


class AuthSettings(BaseSettings):
    further_checks: ClassVar[tuple[str, ...]] = ("app.auth.mail_sender:check_mail",)

    # NIST SP 800-63B-4: 15 where the password is the only factor. OWASP: never fewer than 8.
    password_min_length: Annotated[int, Interval(ge=8, le=64)] = 15
    # A login session ends after this many days without use, or this many days after the login.
    session_idle_days: Annotated[int, Interval(ge=1, le=365)] = 7
    session_absolute_days: Annotated[int, Interval(ge=1, le=365)] = 30
    # Sensitive changes, such as a new email address, need a login that is at most this old.
    recent_login_minutes: Annotated[int, Interval(ge=1, le=1440)] = 60
    # An event in the audit trail is deleted after this many days.
    audit_retention_days: Annotated[int, Interval(ge=1, le=3650)] = 365
    # Links in emails begin with this address of the service, never with the `Host` of a request.
    public_url: LinkBase | None = None
    # Where they lead instead, if a front end has the pages: it reads the token after `#token=`.
    frontend_url: LinkBase | None = None
    # The mail server, such as smtps://user:password@smtp.example.com (TLS, port 465), or
    # smtp://user:password@smtp.example.com:587 (STARTTLS). Development sends no email.
    smtp_url: SecretStr | None = None
    # Who emails are from, such as "Book Shelf <no-reply@example.com>".
    mail_from: str | None = None

    # How users get their password: an administrator chooses it, an invitation by email lets them
    # choose, or they register without an administrator.
    registration: Literal["closed", "invite", "open"] = "closed"

    @field_validator("registration")
    @classmethod
    def _validate_registration(cls, value: str, info: ValidationInfo) -> str:
        found = info.data
        has_links = found.get("smtp_url") and (found.get("public_url") or found.get("frontend_url"))
        if value != "closed" and found.get("environment") != "development" and not has_links:
            raise ValueError("set SMTP_URL and PUBLIC_URL first: it sends links by email")
        return value

    @field_validator("smtp_url")
    @classmethod
    def _validate_smtp_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _validate_smtp_url(value.get_secret_value())
        return value

    @field_validator("mail_from")
    @classmethod
    def _validate_mail_from(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            if info.data.get("smtp_url") is not None:
                raise ValueError("set it, since SMTP_URL is set: Book Shelf <no-reply@example.com>")
            return None
        if not _is_mailbox(value):
            raise ValueError("use one address: Book Shelf <no-reply@example.com>")
        return value


def _validate_smtp_url(value: str) -> None:
    example = "smtps://user:password@smtp.example.com"
    try:
        url = urlsplit(value)
        port, query = url.port, parse_qs(url.query, strict_parsing=bool(url.query))
        # Finds labels that are empty or too long. Otherwise every email would seem to be invalid.
        (url.hostname or "").encode("idna")
    except ValueError:
        # Python's own message may quote a part of the password.
        raise ValueError(f"use a URL, such as {example}") from None
    if url.scheme not in ("smtp", "smtps") or not url.hostname or port == 0:
        raise ValueError(f"use a URL, such as {example}")
    if url.path.strip("/") or url.fragment:
        raise ValueError(f"write / ? # in a password as %2F %3F %23: {example}")
    if query not in ({}, {"tls": ["none"]}) or (query and url.scheme == "smtps"):
        raise ValueError("the only option is ?tls=none, for smtp:// within a private network")
    if (url.username is None) != (url.password is None):
        raise ValueError(f"give both a user and a password, or none: {example}")
    if query and url.username is not None:
        raise ValueError("without TLS, others could read the password: leave out ?tls=none")


def _is_mailbox(value: str) -> bool:
    """Whether this is one address, with or without a name, that a From header can have."""
    if not value.isprintable() or len(value) > _MAX_MAIL_FROM_LENGTH:
        return False
    try:
        header = SMTP.header_factory("From", value)
    except (HeaderParseError, IndexError):
        return False
    addresses: tuple[Address, ...] = getattr(header, "addresses", ())
    is_complete = len(addresses) == 1 and bool(addresses[0].username and addresses[0].domain)
    return is_complete and not header.defects and addresses[0].addr_spec.isascii()
