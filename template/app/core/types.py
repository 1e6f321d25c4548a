"""Column types for models, and field types for schemas."""

import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, LiteralString

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    JsonValue,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError
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


# Pydantic writes 255 levels into a response, and 99 on Windows.
_MAX_JSON_DEPTH = 80

# A NUL, which PostgreSQL cannot store, and lone surrogates, which UTF-8 cannot express.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Whether every database can store this text."""
    return _UNSTORABLE.search(text) is None


# Control characters, and those that change the direction of the text around them.
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"

# Characters that show nothing: those that Unicode calls ignorable, and a few blanks. The joiners
# U+200C and U+200D, the variation selectors and the tags may stay: Persian and emoji need them.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2060-\u206f\u2800"
    "\u3164\ufeff\uffa0\ufff0-\ufffb\U00013441\U00013442\U00016fe4\U0001bca0-\U0001bca3\U0001d159"
    "\U0001d173-\U0001d17a\U000e0000-\U000e001f\U000e0080-\U000e00ff\U000e01f0-\U000e0fff]"
)


def _reject_invisible(text: str) -> str:
    if _INVISIBLE.search(text):
        raise PydanticCustomError("invisible_character", "Leave out invisible characters.")
    return text


# The API documentation would make up an example that matches the pattern: random characters.
_EXAMPLES = ["string"]
ShortText = Annotated[
    str,
    Field(pattern=rf"^[^{_CONTROL}]*$", max_length=255, examples=_EXAMPLES),
    AfterValidator(_reject_invisible),
]
# Several lines: tabs and line breaks are allowed.
Text = Annotated[
    str,
    Field(
        pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]*$",
        max_length=10_000,
        examples=_EXAMPLES,
    ),
]


def _reject_number(time: object) -> object:
    # Pydantic would take it for the seconds since 1970.
    if isinstance(time, int | float) or (isinstance(time, str) and not re.match(r"\d{4}-", time)):
        raise PydanticCustomError("datetime_type", "Use a time such as 2026-01-31T12:00:00Z.")
    return time


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        # In UTC, it would be in the year 0 or 10000.
        raise PydanticCustomError("out_of_range", "Use another year.") from None


def _reject_other_notations(amount: object) -> object:
    # Python also reads 1e2, 1_000 and the digits of other scripts.
    if isinstance(amount, str) and not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)", amount):
        raise PydanticCustomError("decimal_parsing", "Use a number such as 12.50.")
    return amount


def _with_two_places(amount: Decimal) -> Decimal:
    # Adding 0 turns -0.00 into 0.00.
    return amount.quantize(Decimal("0.01")) + 0


def _check_json(value: JsonValue) -> JsonValue:
    # The type JSON of SQLite is numeric: it would round these. In a list or an object, a number is
    # part of a text.
    is_large = isinstance(value, int) and not -MAX_ID - 1 <= value <= MAX_ID
    if is_large or isinstance(value, float):
        reason = "Use an integer of at most 64 bits, or put it into a text, a list or an object."
        raise PydanticCustomError("out_of_range", reason)
    # Not recursive, because Python has a limit for that, too.
    level: list[JsonValue] = [value]
    depth = 0
    while level := [child for item in level for child in _children(item)]:
        depth += 1
        if depth > _MAX_JSON_DEPTH:
            raise PydanticCustomError("too_deep", "Use fewer lists and objects in each other.")
    return value


def _children(value: JsonValue) -> Iterable[JsonValue]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


# What a `Mapped[int]`, a foreign key, a BigInt and a `Mapped[datetime]` can hold in every database.
Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Id = Annotated[int, Field(ge=1, le=MAX_ID)]
Int64 = Annotated[int, Field(ge=-(2**63), le=MAX_ID)]
Timestamp = Annotated[AwareDatetime, BeforeValidator(_reject_number), AfterValidator(_in_utc)]
# What a `Numeric(12, 2)` and a JSON column give back as they were sent.
Amount = Annotated[
    Decimal,
    BeforeValidator(_reject_other_notations),
    Field(max_digits=12, decimal_places=2),
    AfterValidator(_with_two_places),
]
StorableJson = Annotated[JsonValue, AfterValidator(_check_json)]
# No spaces, control or ignorable characters: two addresses that look the same would be two users.
_ADDRESS_CHARACTER = (
    r"[^@\s\p{C}\p{Default_Ignorable_Code_Point}\u2800\U0001d159\U00013441\U00013442]"
)


def _explain(kind: LiteralString, sentence: LiteralString) -> WrapValidator:
    """One sentence for people, instead of the pattern that a text does not match."""

    def validate(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError(kind, sentence) from None

    return WrapValidator(validate)


# The published schema shows the stored form; other spellings are normalized.
Username = Annotated[
    str,
    BeforeValidator(normalize_name),
    Field(pattern=r"^[a-z0-9._-]{3,32}$"),
    _explain("username", "Use 3 to 32 characters: a-z, 0-9, dot, _ and -."),
    WithJsonSchema({"type": "string", "description": "3 to 32 of a-z, 0-9, dot, _ and -"}),
]
Email = Annotated[
    str,
    BeforeValidator(normalize_name),
    Field(
        pattern=rf"^{_ADDRESS_CHARACTER}+@{_ADDRESS_CHARACTER}+\.{_ADDRESS_CHARACTER}+$",
        max_length=MAX_EMAIL_LENGTH,
    ),
    _explain("email", "Enter an address such as ada@example.com."),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": MAX_EMAIL_LENGTH}),
]
# Long passwords are accepted in full, short ones never (OWASP Authentication cheat sheet).
# A NUL is rejected in requests, too.
# PASSWORD_MIN_LENGTH applies, which is at least 8: `hash_new_password` names it.
Password = Annotated[
    str, Field(pattern=r"^[^\x00]*$", max_length=256, json_schema_extra={"minLength": 8})
]
