"""Column types and field types."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.dialects import sqlite

from app.core.checks import MIN_FREE_BYTES, check_folder, check_sqlite_version
from app.core.types import Email, ShortText, Text, Username, UtcDateTime

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def test_a_time_is_stored_in_utc_and_read_with_its_time_zone() -> None:
    column, dialect = UtcDateTime(), sqlite.dialect()
    in_tokyo = NOON.astimezone(timezone(timedelta(hours=9)))

    stored = column.process_bind_param(in_tokyo, dialect)

    assert stored is not None
    assert stored.tzinfo is UTC
    # SQLite drops the time zone.
    assert column.process_result_value(stored.replace(tzinfo=None), dialect) == NOON


def test_a_time_without_a_time_zone_is_rejected() -> None:
    with pytest.raises(ValueError, match="time zone"):
        UtcDateTime().process_bind_param(datetime(2026, 7, 1), sqlite.dialect())


# Characters that show nothing: the ignorable ones of Unicode, and blanks that are not spaces.
INVISIBLE = [
    *"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b\u180e\u180f\u200b\u200e\u200f\u2060\u2064",
    *"\u206a\u2800\u3164\ufeff\uffa0\ufff9\U0001d159\U0001d173\U000e0001\U0001bca0",
]
# They join or vary the characters around them, in Persian and in emoji.
JOINERS = ["\u200c", "\u200d", "\ufe0e", "\ufe0f", "\U000e0100"]


@pytest.mark.parametrize(
    "text",
    ["two\nlines", "a\ttab", "a\x00", "\x1b[31m", "\u202e", "x" * 256]
    + [f"ada{character}" for character in INVISIBLE],
    ids=ascii,
)
def test_i6_a_short_text_is_one_line_without_invisible_characters(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ShortText).validate_python(text)


@pytest.mark.parametrize(
    "text", ["Ada 👩\u200d🚀", "می\u200cخواهم", "I ❤\ufe0f NY", "", "naïve"], ids=ascii
)
def test_i4_a_short_text_may_have_emoji_and_the_letters_of_any_language(text: str) -> None:
    assert TypeAdapter(ShortText).validate_python(text) == text


@pytest.mark.parametrize("character", INVISIBLE + JOINERS, ids=ascii)
def test_i8_no_invisible_character_makes_a_second_email_address(character: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Email).validate_python(f"ada{character}@corp.example")
    with pytest.raises(ValidationError):
        TypeAdapter(Email).validate_python(f"ada@corp{character}.example")


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        ("two\nlines and a\ttab", True),
        ("a\x00", False),
        ("\x1b[31m", False),
        ("\u202e", False),
        ("x" * 10_000, True),
        ("x" * 10_001, False),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_i6_a_text_may_have_lines_but_no_other_control_characters(
    text: str, is_valid: bool
) -> None:
    adapter = TypeAdapter(Text)

    if is_valid:
        assert adapter.validate_python(text) == text
    else:
        with pytest.raises(ValidationError):
            adapter.validate_python(text)


@pytest.mark.parametrize(
    ("kind", "written", "stored"),
    [
        (Username, " ＡＤＡ ", "ada"),
        (Email, "Ada@Example.COM", "ada@example.com"),
        (Email, "ada@STRAßE.de", "ada@straße.de"),
    ],
)
def test_i8_a_name_has_one_spelling(kind: Any, written: str, stored: str) -> None:
    adapter: TypeAdapter[str] = TypeAdapter(kind)

    assert adapter.validate_python(written) == stored


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ((3, 44, 5), "warning"),
        ((3, 44, 6), "ok"),
        ((3, 50, 4), "warning"),
        ((3, 50, 7), "ok"),
        ((3, 51, 2), "warning"),
        ((3, 51, 3), "ok"),
        ((4, 0, 0), "ok"),
    ],
)
def test_a_sqlite_that_can_corrupt_its_log_is_reported(
    version: tuple[int, ...], level: str
) -> None:
    assert check_sqlite_version(version).level == level


ADVICE = "create it, fix DATABASE_URL, or run this as the user of the app"


@pytest.mark.parametrize(
    ("folder", "min_free", "expected"),
    [
        (".", 0, []),
        (".", 2**70, [("warning", "make room")]),
        ("missing", MIN_FREE_BYTES, [("error", ADVICE)]),
    ],
    ids=["fine", "full", "missing"],
)
def test_check_judges_the_folder_of_the_database(
    tmp_path: Path, folder: str, min_free: int, expected: list[tuple[str, str]]
) -> None:
    results = check_folder(tmp_path / folder / "app.db", min_free)

    assert [(result.level, result.message.split(": ")[1]) for result in results] == expected


@pytest.mark.parametrize("kind", [ShortText, Text])
def test_the_documentation_makes_up_no_random_example_of_a_text(kind: Any) -> None:
    assert TypeAdapter(kind).json_schema()["examples"] == ["string"]
