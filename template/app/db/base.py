"""The base class of every model: what all tables have in common."""

from datetime import datetime
from typing import Any

from sqlalchemy import MetaData, Table
from sqlalchemy.orm import DeclarativeBase, Mapped

from app.core.types import NAMING_CONVENTION, PrimaryKey, UtcDateTime


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    # `Mapped[datetime]` is a time in UTC.
    type_annotation_map = {datetime: UtcDateTime}  # noqa: RUF012

    id: Mapped[PrimaryKey]

    @classmethod
    def __table_cls__(cls, *arguments: Any, **options: Any) -> Table:
        # Otherwise SQLite gives the id of a deleted row again, if it was the newest one.
        return Table(*arguments, **{"sqlite_autoincrement": True, **options})
