"""The base of every model: what all tables have in common."""

from datetime import UTC, datetime
from typing import Annotated

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, MetaData, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite rebuilds a table to alter it, and can only keep or drop a constraint that has a name.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# SQLite numbers rows by itself only in a column of exactly the type INTEGER; it holds 64 bits.
LARGEST_ID = 2**63 - 1
BigInt = BigInteger().with_variant(Integer, "sqlite")
PrimaryKey = Annotated[int, mapped_column(BigInt, primary_key=True, sort_order=-1)]


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, always with its zone, UTC: SQLite itself would keep none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("give a time with its zone, as datetime.now(UTC) is")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo:
            return value and value.astimezone(UTC)
        return value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    # `Mapped[datetime]` is a moment in UTC.
    type_annotation_map = {datetime: UtcDateTime}  # noqa: RUF012

    id: Mapped[PrimaryKey]
