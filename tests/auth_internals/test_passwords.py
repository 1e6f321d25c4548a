"""Passwords: how they are stored, and which new ones are rejected."""

import asyncio
import logging
import threading
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest
from fastapi.testclient import TestClient
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import Engine

from app.auth import passwords
from app.auth.passwords import DUMMY_HASH, count_guesses, hash_new_password, verify_password
from app.core.errors import Invalid
from app.main import create_app
from app.settings import Settings
from tests.auth_internals.helpers import (
    ADA,
    CHANGE_PASSWORD,
    EASY,
    LOGIN,
    NEW_PASSWORD,
    PASSWORD,
    USERS,
    WRONG,
    LogIn,
    MakeUser,
    execute,
    header_of,
)
from tests.conftest import MakeSettings

# What people choose when they must use fifteen characters, and what attackers therefore try.
EASY_PASSWORDS = [
    "correcthorsebatterystaple",
    "Welcome2026!!!!",
    "Administrator123!",
    "Password12345678",
    "P@ssw0rd12345678",
    "Passw0rd!Passw0rd!",
    "MyPassword123456",
    "ThisIsMyPassword",
    "thisismypassword1",
    "iloveyouiloveyou",
    "ILoveYou12345678",
    "qwertyuiop123456",
    "qwertyuiopasdfgh",
    "1q2w3e4r5t6y7u8i",
    "1qaz2wsx3edc4rfv",
    "zaq12wsxcde34rfv",
    "asdfghjklqwertyuiop",
    "123456789012345",
    "987654321098765",
    "abcdefghijklmnop",
    "abc123abc123abc123",
    "aaaaaaaaaaaaaaaa",
    "passwordpassword",
    "passwordpassword1",
    "password123password123",
    "letmeinletmeinletmein",
    "letmein123456789",
    "Summer2026!Summer",
    "Winter2025Winter2025",
    "Summer2026!!!!!!!",
    "Autumn-2026-Autumn",
    "Spring2026Spring!",
    "January2026!!!!!",
    "Monday12345678!",
    "Welcome123456789",
    "WelcomeWelcome1!",
    "Changeme12345678",
    "changemechangeme",
    "ChangeMePlease123",
    "PleaseChangeMe1!",
    "admin123admin123",
    "adminadminadmin1",
    "administrator2026",
    "Administrator!!!!",
    "rootrootrootroot",
    "test123test123test",
    "testtesttesttest",
    "TestPassword123!",
    "DefaultPassword1",
    "SecretPassword1!",
    "supersecretpassword",
    "mysecretpassword",
    "SuperSecret12345",
    "LongPassword1234",
    "averylongpassword",
    "thisisaverylongpassword",
    "NewPassword2026!",
    "TempPassword123!",
    "Liverpool1234567",
    "ManchesterUnited1",
    "manchesterunited",
    "chelseafootballclub",
    "realmadridbarcelona",
    "superman12345678",
    "harrypotter12345",
    "starwarsstarwars",
    "maytheforcebewithyou",
    "tobeornottobethatisthequestion",
    "thequickbrownfox",
    "thequickbrownfoxjumps",
    "nevergonnagiveyouup",
    "trustno1trustno1",
    "Michael123456789",
    "Jennifer2026!!!!",
    "michaelmichael1990",
]

# Four to six words of a word list for dice, and what password managers generate.
GOOD_PASSWORDS = [
    "dose private panning clambake",
    "grope-veteran-pulp-mashed",
    "reburialpostnasalblahpupil",
    "alabaster vaguely tributary manliness editor",
    "passcodedollhousedeaconshortsmanual",
    "padded trend parted matrix herring relax",
    "underfeed-conduit-diving-refusing-confined-unfixable",
    "walrusoutclasshazelnutsmellalmightyrockslide",
    "iufMdI8X2Y4rUme",
    "r#BH3M1%XS-0DRdJ",
    "uP=_nBIKpi99lSi0tcL2",
    "1pffWQ?J%EeNajn-ez0LHtfROUrWW6*X",
    "utvrdt-zqinux-whjniq",
    "51f5904d67f0658cc0adc256abe0ee02",
    "69506992057559470900",
]


@pytest.mark.usefixtures("real_hashing")
def test_a2_a_password_is_stored_as_argon2id_and_nowhere_in_plain_text(
    client: TestClient,
    admin: dict[str, str],
    rows: Engine,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    client.post(USERS, json=ADA, headers=admin)
    client.post(LOGIN, data={"username": "ada", "password": PASSWORD})

    (stored,) = execute(rows, "SELECT password FROM users WHERE username = 'ada'")[0]
    assert str(stored).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert PASSWORD not in caplog.text
    if rows.dialect.name == "sqlite":
        file = request.getfixturevalue("database")
        for part in file.parent.glob(f"{file.name}*"):
            assert PASSWORD.encode() not in part.read_bytes()


def test_a3_a_login_renews_a_hash_with_older_parameters(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    """Two logins at once, of which one renews the hash that the other has verified."""
    make_user("ada")
    old = Argon2Hasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    execute(rows, "UPDATE users SET password = :old", old=old)
    forms = [{"username": name, "password": PASSWORD} for name in ("ada", "ada@example.com")]

    with ThreadPoolExecutor(2) as both:
        statuses = list(both.map(lambda form: client.post(LOGIN, data=form).status_code, forms))

    assert statuses == [200, 200]
    (stored,) = execute(rows, "SELECT password FROM users")[0]
    assert stored != old
    assert not passwords.HASHER.current_hasher.check_needs_rehash(str(stored))


@pytest.mark.usefixtures("real_hashing")
def test_a5_the_dummy_hash_costs_as_much_as_a_real_one() -> None:
    assert not passwords.HASHER.current_hasher.check_needs_rehash(DUMMY_HASH)
    assert asyncio.run(verify_password(PASSWORD, DUMMY_HASH)) == (False, None)


@pytest.mark.parametrize(
    "password",
    [
        "".join(f"{n * 7919 % 997}." for n in range(80))[:255] + "!",
        "🐎🔋📎🦆🦢🦉🐝🦋🐌🐞🦂🐢🐍🦎🦖",
        " leading and trailing spaces ",
        "Größe, Maß und Übermaß!",
    ],
    ids=["256 characters", "emoji", "spaces", "accents"],
)
def test_a6_a11_any_long_enough_password_is_accepted_in_full(
    client: TestClient, admin: dict[str, str], password: str
) -> None:
    created = client.post(USERS, json={**ADA, "password": password}, headers=admin)
    right = client.post(LOGIN, data={"username": "ada", "password": password})
    wrong = client.post(LOGIN, data={"username": "ada", "password": password[:-1] + "?"})

    assert (created.status_code, right.status_code, wrong.status_code) == (201, 200, 401)


def test_a6_a_password_is_the_same_from_every_keyboard(
    client: TestClient, admin: dict[str, str]
) -> None:
    composed, decomposed = "caf\u00e9 au lait, sans sucre", "cafe\u0301 au lait, sans sucre"
    client.post(USERS, json={**ADA, "password": composed}, headers=admin)

    assert header_of(client, "ada", decomposed)


def test_i4_a_password_with_a_nul_is_rejected_and_not_cut(
    client: TestClient, admin: dict[str, str]
) -> None:
    data = {**ADA, "password": "seven wet otters\x00 on a raft"}

    assert client.post(USERS, json=data, headers=admin).status_code == 422


@pytest.mark.parametrize("length", [14, 257, 2**16])
def test_a6_a_password_that_is_too_short_or_too_long_is_rejected_and_not_cut(
    client: TestClient, admin: dict[str, str], length: int
) -> None:
    password = ("Kz7#vW9!" * (length // 8 + 1))[:length]

    response = client.post(USERS, json={**ADA, "password": password}, headers=admin)

    assert response.status_code == 422
    assert password not in response.text


def test_a6_the_minimum_length_is_a_setting(
    make_settings: MakeSettings, make_user: MakeUser
) -> None:
    make_user("admin", "users:write")
    with TestClient(create_app(make_settings(password_min_length=8))) as client:
        header = header_of(client, "admin")
        response = client.post(USERS, json={**ADA, "password": "Kz7#vW9!"}, headers=header)

    assert response.status_code == 201


@pytest.mark.parametrize(
    "password",
    [
        EASY,
        "password12345678",
        "aaaaaaaaaaaaaaaa",
        "123456789012345",
        "qwertyuiopasdfgh",
        "abcdefghijklmnop",
        "letmeinletmeinletmein",
        "ada is the best of us",
        "A.D.A lovelace lives",
        "the countess of here",
    ],
)
def test_a7_an_easy_password_is_rejected_for_a_new_user(
    client: TestClient, admin: dict[str, str], password: str
) -> None:
    data = {"username": "ada", "email": "countess@example.com", "password": password}

    response = client.post(USERS, json=data, headers=admin)

    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["loc"] == ["body", "password"]
    assert error["type"] == "password_refused"


def is_accepted(settings: Settings, password: str) -> bool:
    try:
        asyncio.run(hash_new_password(settings, password, "someone", "someone@example.com"))
    except Invalid:
        return False
    return True


def test_a7_what_people_choose_when_they_must_use_fifteen_characters_is_rejected(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings()

    assert [word for word in EASY_PASSWORDS if is_accepted(settings, word)] == []


def test_a7_random_words_and_generated_passwords_are_accepted(make_settings: MakeSettings) -> None:
    settings = make_settings()

    assert [word for word in GOOD_PASSWORDS if not is_accepted(settings, word)] == []


def test_a7_the_words_of_the_service_make_a_password_easier_to_guess() -> None:
    password = "Quokkashop2026!!"

    assert count_guesses(password) > 1e10 > count_guesses(password, ["quokkashop"])


def test_a7_an_easy_password_is_rejected_when_it_is_changed_or_set(
    client: TestClient, make_user: MakeUser, log_in: LogIn, admin: dict[str, str]
) -> None:
    user_id, ada = make_user("ada"), log_in("ada")
    change = {"current_password": PASSWORD, "new_password": EASY}

    changed = client.post(CHANGE_PASSWORD, json=change, headers=ada)
    # One of the words of this password is a name that the user gets with it.
    resets = [
        {"password": EASY},
        {"password": PASSWORD, "username": "otters"},
        {"password": PASSWORD, "email": "otters@example.com"},
    ]
    path = f"{USERS}/{user_id}"
    reset = [client.patch(path, json=data, headers=admin).status_code for data in resets]

    assert (changed.status_code, reset) == (422, [422] * 3)


def test_a7_a_long_password_is_no_easier_than_its_harder_end(
    client: TestClient, admin: dict[str, str]
) -> None:
    data = {**ADA, "password": "passwordpassword1234 wet otters on a raft, seven"}

    assert client.post(USERS, json=data, headers=admin).status_code == 201


def test_a8_a_change_needs_the_current_password_and_is_throttled(
    client: TestClient, visitor: dict[str, str]
) -> None:
    change = {"current_password": WRONG, "new_password": NEW_PASSWORD}

    statuses = [
        client.post(CHANGE_PASSWORD, json=change, headers=visitor).status_code for _ in range(6)
    ]

    assert statuses == [403] * 5 + [429]


def test_a8_a_new_password_is_only_checked_after_the_current_one_was_correct(
    client: TestClient, visitor: dict[str, str]
) -> None:
    """The check costs more than hashing. A rejected new password is not a wrong guess."""

    def change(current: str) -> int:
        data = {"current_password": current, "new_password": EASY}
        return client.post(CHANGE_PASSWORD, json=data, headers=visitor).status_code

    assert change(WRONG) == 403
    assert [change(PASSWORD) for _ in range(6)] == [422] * 6


def test_a8_an_address_can_have_thirty_new_passwords_checked_and_no_more(
    client: TestClient, visitor: dict[str, str], rows: Engine
) -> None:
    """Each check costs as much as several logins."""
    change = {"current_password": PASSWORD, "new_password": EASY}
    execute(rows, "UPDATE throttles SET attempts = 29")

    statuses = [
        client.post(CHANGE_PASSWORD, json=change, headers=visitor).status_code for _ in range(2)
    ]

    assert statuses == [422, 429]


def test_a11_digits_before_a_line_break_are_no_error(
    client: TestClient, admin: dict[str, str]
) -> None:
    data = {**ADA, "password": "my pin is 123456\nthanks a lot"}

    assert client.post(USERS, json=data, headers=admin).status_code in {201, 422}


@pytest.mark.usefixtures("real_hashing")
def test_a11_no_password_takes_longer_to_check_than_a_few_hashes() -> None:
    """Both are measured here, since a machine that is slow for one is slow for the other."""
    slow = "0e79(9s@$[t6+<{@b|+4%594i|1(6[2e" * 8

    def seconds(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    checked = min(seconds(lambda: count_guesses(slow)) for _ in range(5))
    hashed = min(seconds(lambda: passwords.HASHER.hash(b"to compare with")) for _ in range(5))

    assert checked < 10 * hashed


@pytest.mark.parametrize(
    "password",
    [b"%00", b"%ED%A0%80" * 9, b"%FF%FE", b"x" * 2**13, b"e%CC%81" * 9, b"%F0%9F%90%8E", b""],
    ids=["NUL", "surrogate", "no UTF-8", "8 KiB", "NFD", "emoji", "empty"],
)
def test_a11_no_password_breaks_the_login(
    client: TestClient, make_user: MakeUser, password: bytes
) -> None:
    make_user("ada")

    response = client.post(
        LOGIN,
        content=b"username=ada&password=" + password,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )

    assert response.status_code in {400, 401, 422}


def test_a11_a_text_that_is_too_long_is_never_normalized(
    client: TestClient, admin: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Composing accents takes the square of their number: seconds for 100 kB."""
    lengths, normalize = [], unicodedata.normalize

    def measure(form: Literal["NFC", "NFKC"], text: str) -> str:
        lengths.append(len(text))
        return normalize(form, text)

    monkeypatch.setattr(unicodedata, "normalize", measure)
    marks = "a" + "\u0327\u0301" * 600

    statuses = [
        client.post(LOGIN, data={"username": name, "password": marks}).status_code
        for name in (marks, f"{marks}@example.com", "admin")
    ]
    for field in ADA:
        data = {**ADA, field: ADA[field] + marks}
        statuses.append(client.post(USERS, json=data, headers=admin).status_code)
    search = client.get(USERS, params={"q": marks}, headers=admin)

    assert statuses == [401] * 3 + [422] * 3
    assert search.status_code == 422
    assert max(lengths) <= 1024


@pytest.mark.parametrize("stored", ["x", "", "$argon2id$v=19$m=19456,t=2,p=1$AAAA$AAAA"])
def test_a12_an_invalid_stored_hash_is_a_401(
    client: TestClient, make_user: MakeUser, rows: Engine, stored: str
) -> None:
    make_user("ada")
    execute(rows, "UPDATE users SET password = :stored", stored=stored)

    assert client.post(LOGIN, data={"username": "ada", "password": PASSWORD}).status_code == 401


def test_a_login_that_waits_too_long_for_its_hash_is_a_503(
    client: TestClient, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_user("ada")
    release = threading.Event()
    monkeypatch.setattr(passwords, "_MAX_QUEUE_SECONDS", 0.2)
    for _ in range(4):
        passwords._HASHING_THREADS.submit(release.wait, 10)

    response = client.post(LOGIN, data={"username": "ada", "password": PASSWORD})
    release.set()

    assert response.status_code == 503
