"""Every permission that the code asks for.

To add one, name it twice here; `alembic upgrade head` then adds its row, and
`permission grant USERNAME NAME` on the command line gives it to its first holder. The row of a name
that is taken out here stays, as one that can be renamed and deleted over the API.
"""

from typing import Literal

PermissionName = Literal[
    "users:read",
    "users:write",
    "permissions:read",
    "permissions:write",
]

PERMISSIONS: dict[PermissionName, str] = {
    "users:read": "See every account",
    "users:write": "Create, change and delete accounts",
    "permissions:read": "See which permissions there are",
    "permissions:write": "Grant and revoke permissions",
}

# Whoever holds this one can hand out the others: the last active holder can't be lost.
ADMINISTRATION: PermissionName = "permissions:write"
