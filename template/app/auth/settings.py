"""The settings of the login."""

from typing import Annotated

from annotated_types import Interval
from pydantic_settings import BaseSettings


class AuthSettings(BaseSettings):
    # NIST SP 800-63B-4: 15 where the password is the only factor. OWASP: never fewer than 8.
    password_min_length: Annotated[int, Interval(ge=8, le=64)] = 15
    # A login session ends after this many days without use, or this many days after the login.
    session_idle_days: Annotated[int, Interval(ge=1, le=365)] = 7
    session_absolute_days: Annotated[int, Interval(ge=1, le=365)] = 30
    # Sensitive changes, such as a new email address, need a login that is at most this old.
    recent_login_minutes: Annotated[int, Interval(ge=1, le=1440)] = 60
    # An event in the audit trail is deleted after this many days.
    audit_retention_days: Annotated[int, Interval(ge=1, le=3650)] = 365
