"""The permissions that the code asks for are rows, too: an upgrade adds those that are missing."""

from app.db.base import Base
from app.db.reference import keep_rows
from app.models.user import Permission
from app.permissions import PERMISSIONS

keep_rows(
    Base.metadata.tables[Permission.__tablename__],
    "name",
    [{"name": name, "description": text} for name, text in PERMISSIONS.items()],
)
