"""The permissions that the code asks for, and the routes that need no login.

`alembic upgrade head` adds a row for each new permission; `permission grant USERNAME NAME` on the
command line grants it to the first user.
"""

from enum import StrEnum
from typing import Self


class PermissionName(StrEnum):
    description: str

    def __new__(cls, name: str, description: str) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.description = description
        return member

    USERS_READ = "users:read", "See all users"
    USERS_WRITE = "users:write", "Create, change and delete users"
    PERMISSIONS_READ = "permissions:read", "See the permissions"
    PERMISSIONS_WRITE = "permissions:write", "Grant and revoke permissions"
    AUDIT_READ = "audit:read", "See who changed what"


# The tests fail for any other route that needs no login.
PUBLIC_ROUTES = {
    ("GET", "/api/v1/"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("POST", "/api/v1/auth/login"),
    ("POST", "/api/v1/auth/password/forgot"),
    ("POST", "/api/v1/auth/password/reset"),
    ("POST", "/api/v1/auth/email/confirm"),
    ("POST", "/api/v1/auth/register"),
    ("POST", "/api/v1/auth/register/complete"),
    # The pages that links in emails open, and the one that asks for such a link.
    ("GET", "/account/forgot-password"),
    ("POST", "/account/forgot-password"),
    ("GET", "/account/confirm-email"),
    ("POST", "/account/confirm-email"),
    ("GET", "/account/register"),
    ("POST", "/account/register"),
    ("GET", "/account/reset-password"),
    ("POST", "/account/reset-password"),
}
