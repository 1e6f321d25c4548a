"""Column types for models, and field types for schemas."""

import unicodedata
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema
from sqlalchemy import BigInteger, DateTime, Dialect, Integer, TypeDecorator
from sqlalchemy.orm import mapped_column

# SQLite rebuilds a table to alter it, and can only keep or drop a constraint that has a name.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

MAX_ID = 2**63 - 1
# SQLite only generates ids for a column whose type is exactly INTEGER, which holds 64 bits there.
BigInt = BigInteger().with_variant(Integer, "sqlite")
PrimaryKey = Annotated[int, mapped_column(BigInt, primary_key=True, sort_order=-1)]


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, always in UTC. SQLite itself would drop the time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("use a datetime with a time zone, such as datetime.now(UTC)")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo:
            return value and value.astimezone(UTC)
        return value.replace(tzinfo=UTC)


# RFC 5321. A longer text is rejected without being normalized: the time for that grows with the
# square of the length.
MAX_EMAIL_LENGTH = 254


def normalize_name(text: object) -> object:
    """Spell names that people consider equal in one way: NFKC, case-folded, trimmed.

    The domain of an email address is only lowercased. Case folding would turn straße.de into
    strasse.de, which is another domain.
    """
    if not isinstance(text, str) or len(text) > MAX_EMAIL_LENGTH:
        return text
    name, at, domain = unicodedata.normalize("NFKC", text).strip().partition("@")
    return f"{name.casefold()}{at}{domain.lower()}"


# Control characters, and those that change the direction of the text around them.
_INVISIBLE = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"

ShortText = Annotated[str, Field(pattern=rf"^[^{_INVISIBLE}]*$", max_length=255)]
# Several lines: tabs and line breaks are allowed.
Text = Annotated[
    str,
    Field(
        pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]*$",
        max_length=10_000,
    ),
]
# The published schema shows the stored form; other spellings are normalized.
Username = Annotated[
    str,
    BeforeValidator(normalize_name),
    Field(pattern=r"^[a-z0-9._-]{3,32}$"),
    WithJsonSchema({"type": "string", "description": "3 to 32 of a-z, 0-9, dot, _ and -"}),
]
Email = Annotated[
    str,
    BeforeValidator(normalize_name),
    Field(
        pattern=rf"^[^@\s{_INVISIBLE}]+@[^@\s{_INVISIBLE}]+\.[^@\s{_INVISIBLE}]+$",
        max_length=MAX_EMAIL_LENGTH,
    ),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": MAX_EMAIL_LENGTH}),
]
# Long passwords are accepted in full, short ones never (OWASP Authentication cheat sheet).
Password = Annotated[str, Field(min_length=8, max_length=256)]
