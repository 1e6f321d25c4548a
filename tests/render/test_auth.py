"""The auth option: all of it, or nothing."""

import re
from pathlib import Path

import pytest

from tests.projects import Generate

WORDS = ["argon2", "bearer", "email-validator", "pwdlib", "session_idle", "throttle", "zxcvbn"]
FILES = [
    "alembic/versions/41d7a60c93be_auth.py",
    "app/accounts.py",
    "app/permissions.py",
    "app/security.py",
    "app/api/auth.py",
    "app/api/v1/auth_router.py",
    "app/api/v1/permissions_router.py",
    "app/api/v1/users_router.py",
    "app/models/session.py",
    "app/services/login.py",
    "tests/auth/test_login.py",
]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_log_in_stands_only_where_people_log_in(generate: Generate, word: str) -> None:
    assert generate(auth=True).mentions(word)
    assert generate(auth=False).mentions(word) == []


def test_without_log_in_its_files_are_gone_and_the_models_stay(generate: Generate) -> None:
    with_auth, without = generate(auth=True), generate(auth=False)

    assert [file for file in FILES if not with_auth.has(file)] == []
    assert [file for file in FILES if without.has(file)] == []
    assert not without.has("app/services")
    assert not without.has("tests/auth")
    for file in ("app/models/user.py", "app/schemas/user.py"):
        assert without.read(file) == with_auth.read(file)


def test_no_module_is_missed_where_it_is_left_out(generate: Generate) -> None:
    """Every module that a file imports is there."""
    project = generate(auth=False)
    files = set(project.files())
    for file in files:
        if file.suffix == ".py":
            for name in re.findall(r"^ *from (app[\w.]*) import", project.read(str(file)), re.M):
                place = Path(*name.split("."))
                assert {place.with_suffix(".py"), place / "__init__.py"} & files, (file, name)
