"""The auth option: all of it, or nothing."""

import re
from pathlib import Path

import pytest

from tests.support.projects import Generate

WORDS = [
    "aiosmtplib",
    "argon2",
    "email-validator",
    "outgoing_mails",
    "pwdlib",
    "session_idle",
    "smtp",
    "throttle",
    "zxcvbn",
]
FILES = [
    "alembic/versions/41d7a60c93be_auth.py",
    "alembic/versions/5e2c9a71d8b4_audit.py",
    "alembic/versions/6c0f4b83e2a9_api_keys.py",
    "alembic/versions/7a90e4d1c6f8_login_session_ids.py",
    "alembic/versions/b5d20e9f4a37_user_search.py",
    "alembic/versions/e58b1f0c27d4_outgoing_mails.py",
    "alembic/versions/e2b6c91f4a07_one_time_tokens.py",
    "app/auth/account.py",
    "app/auth/account_router.py",
    "app/auth/api_keys.py",
    "app/auth/audit.py",
    "app/auth/audit_router.py",
    "app/auth/authentication.py",
    "app/auth/cli.py",
    "app/auth/dependencies.py",
    "app/auth/keys_router.py",
    "app/auth/links.py",
    "app/auth/mail.py",
    "app/auth/mail_cli.py",
    "app/auth/mail_sender.py",
    "app/auth/mailbox.html",
    "app/auth/mailbox.py",
    "app/auth/models.py",
    "app/auth/page.html",
    "app/auth/pages.py",
    "app/auth/passwords.py",
    "app/auth/permissions.py",
    "app/auth/router.py",
    "app/auth/schemas.py",
    "app/auth/service.py",
    "app/auth/sessions.py",
    "app/auth/settings.py",
    "app/auth/throttle.py",
    "app/auth/users.py",
    "app/auth/users_router.py",
    "app/mails/__init__.py",
    "app/mails/confirm_new_email.txt",
    "app/mails/invitation.txt",
    "app/mails/layout.html",
    "app/mails/new_login.txt",
    "app/mails/notify_previous_email.txt",
    "app/mails/password_changed.txt",
    "app/mails/password_reset.txt",
    "app/mails/permissions_changed.txt",
    "app/mails/registration.txt",
    "app/mails/registration_known.txt",
    "app/mails/restore_previous_email.txt",
    "app/permissions.py",
    "tests/auth/test_login.py",
]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_the_login_appears_only_with_auth(generate: Generate, word: str) -> None:
    assert generate(auth=True).mentions(word)
    assert generate(auth=False).mentions(word) == []


def test_without_auth_its_files_are_gone_and_the_models_stay(generate: Generate) -> None:
    with_auth, without = generate(auth=True), generate(auth=False)

    assert [file for file in FILES if not with_auth.has(file)] == []
    assert [file for file in FILES if without.has(file)] == []
    assert not without.has("app/auth")
    assert not without.has("tests/auth")
    for file in ("app/models/user.py", "app/schemas/user.py"):
        assert without.read(file) == with_auth.read(file)


def test_without_auth_every_imported_module_exists(generate: Generate) -> None:
    project = generate(auth=False)
    files = set(project.files())
    for file in files:
        if file.suffix == ".py":
            for name in re.findall(r"^ *from (app[\w.]*) import", project.read(str(file)), re.M):
                place = Path(*name.split("."))
                assert {place.with_suffix(".py"), place / "__init__.py"} & files, (file, name)


def test_an_app_of_any_name_passes_its_tests(generate: Generate) -> None:
    """A password must not contain the name of the app, so those of the tests contain no word."""
    text = generate(auth=True).read("tests/auth/conftest.py")
    passwords = re.findall(r'^(?:NEW_)?PASSWORD = "(.+)"$', text, re.MULTILINE)

    assert len(passwords) == 2
    assert [
        p for p in passwords if re.search(r"[a-z]{3}", p.replace("-", "").replace(" ", ""))
    ] == []
