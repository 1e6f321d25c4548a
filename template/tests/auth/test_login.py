"""Logging in and passwords. The ids are those of docs/security.md in the template."""

import asyncio
import logging
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest
from fastapi.testclient import TestClient
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import Engine, text

from app import security
from app.db.session import Database
from app.main import create_app
from app.passwords import guesses
from app.security import DECOY, HASHING, verify_password
from app.services.throttle_rules import account_key
from tests.auth.conftest import ADA, LOGIN, ME, PASSWORD, LogIn, MakeUser, execute, move_clock
from tests.conftest import MakeSettings


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each stored hash was checked; the check itself is the real one."""
    counts: Counter[str] = Counter()
    check = HASHING.verify_and_update

    def counted(password: bytes, stored: str) -> tuple[bool, str | None]:
        counts[stored] += 1
        return check(password, stored)

    monkeypatch.setattr(HASHING, "verify_and_update", counted)
    return counts


@pytest.mark.parametrize("username", ["admin", "root", "administrator", "test"])
def test_a1_there_is_no_default_account(client: TestClient, rows: Engine, username: str) -> None:
    for password in ("admin", "password", "changeme", ""):
        form = {"username": username, "password": password}
        assert client.post(LOGIN, data=form).status_code in {401, 422}

    assert execute(rows, "SELECT count(*) FROM users") == [(0,)]


def test_a2_a_password_is_stored_as_argon2id_and_nowhere_else(
    client: TestClient,
    admin: dict[str, str],
    rows: Engine,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    client.post("/api/v1/users", json=ADA, headers=admin)
    client.post(LOGIN, data={"username": "ada", "password": PASSWORD})

    (stored,) = execute(rows, "SELECT password FROM users WHERE username = 'ada'")[0]
    assert str(stored).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert PASSWORD not in caplog.text
    if rows.dialect.name == "sqlite":
        file = request.getfixturevalue("database")
        for part in file.parent.glob(f"{file.name}*"):
            assert PASSWORD.encode() not in part.read_bytes()


def test_a3_a_hash_of_older_parameters_is_renewed_by_logging_in(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")
    old = Argon2Hasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    execute(rows, "UPDATE users SET password = :old", old=old)
    forms = [{"username": name, "password": PASSWORD} for name in ("ada", "ada@example.com")]

    with ThreadPoolExecutor(2) as both:
        statuses = list(both.map(lambda form: client.post(LOGIN, data=form).status_code, forms))

    assert statuses == [200, 200]
    (stored,) = execute(rows, "SELECT password FROM users")[0]
    assert stored != old
    assert not HASHING.current_hasher.check_needs_rehash(str(stored))


def test_a4_a5_whoever_cannot_log_in_learns_nothing_of_why(
    client: TestClient, make_user: MakeUser, verified: Counter[str]
) -> None:
    make_user("ada")
    make_user("gone", is_active=False)

    answers = []
    for username, password in [
        ("ada", "wrong password, this one"),
        ("nobody", PASSWORD),
        ("nobody@example.com", PASSWORD),
        ("no such \x00 name", PASSWORD),
        ("gone", PASSWORD),
    ]:
        before = verified.total()
        answers.append(client.post(LOGIN, data={"username": username, "password": password}))
        assert verified.total() == before + 1

    bodies = {answer.text.replace(answer.headers["x-request-id"], "") for answer in answers}
    headers = {
        tuple((k, v) for k, v in answer.headers.items() if k != "x-request-id")
        for answer in answers
    }
    assert [answer.status_code for answer in answers] == [401] * 5
    assert len(bodies) == len(headers) == 1


def test_a5_the_decoy_costs_what_a_real_hash_costs() -> None:
    assert not HASHING.current_hasher.check_needs_rehash(DECOY)
    assert asyncio.run(verify_password(PASSWORD, DECOY)) == (False, None)


@pytest.mark.parametrize(
    "password",
    [
        "".join(f"{n * 7919 % 997}." for n in range(80))[:255] + "!",
        "🐎🔋📎🦆🦢🦉🐝🦋🐌🐞🦂🐢🐍🦎🦖",
        " leading and trailing spaces ",
        "Größe, Maß und Übermaß!",
        "nul\x00is a character too",
    ],
    ids=["256 characters", "emoji", "spaces", "accents", "NUL"],
)
def test_a6_a11_any_long_enough_password_is_taken_whole(
    client: TestClient, admin: dict[str, str], password: str
) -> None:
    created = client.post("/api/v1/users", json={**ADA, "password": password}, headers=admin)
    right = client.post(LOGIN, data={"username": "ada", "password": password})
    wrong = client.post(LOGIN, data={"username": "ada", "password": password[:-1] + "?"})

    assert (created.status_code, right.status_code, wrong.status_code) == (201, 200, 401)


def test_a6_a_password_is_the_same_from_every_keyboard(
    client: TestClient, admin: dict[str, str]
) -> None:
    composed, decomposed = "caf\u00e9 au lait, sans sucre", "cafe\u0301 au lait, sans sucre"
    client.post("/api/v1/users", json={**ADA, "password": composed}, headers=admin)

    form = {"username": "ada", "password": decomposed}
    assert client.post(LOGIN, data=form).status_code == 200


@pytest.mark.parametrize("length", [14, 257, 2**16])
def test_a6_too_short_or_too_long_is_refused_and_not_cut(
    client: TestClient, admin: dict[str, str], length: int
) -> None:
    password = ("Kz7#vW9!" * (length // 8 + 1))[:length]

    answer = client.post("/api/v1/users", json={**ADA, "password": password}, headers=admin)

    assert answer.status_code == 422
    assert password not in answer.text


def test_a6_how_short_is_a_setting(make_settings: MakeSettings, make_user: MakeUser) -> None:
    make_user("admin", "users:write")
    with TestClient(create_app(make_settings(password_min_length=8))) as client:
        token = client.post(LOGIN, data={"username": "admin", "password": PASSWORD}).json()
        header = {"Authorization": f"Bearer {token['access_token']}"}
        answer = client.post("/api/v1/users", json={**ADA, "password": "Kz7#vW9!"}, headers=header)

    assert answer.status_code == 201


EASY = [
    "passwordpassword",
    "password12345678",
    "aaaaaaaaaaaaaaaa",
    "123456789012345",
    "qwertyuiopasdfgh",
    "abcdefghijklmnop",
    "letmeinletmeinletmein",
    "ada is the best of us",
    "A.D.A lovelace lives",
    "the countess of here",
]


@pytest.mark.parametrize("password", EASY)
def test_a7_an_easy_password_is_refused_when_an_account_is_made(
    client: TestClient, admin: dict[str, str], password: str
) -> None:
    data = {"username": "ada", "email": "countess@example.com", "password": password}

    answer = client.post("/api/v1/users", json=data, headers=admin)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["body", "password"]
    assert answer.json()["errors"][0]["type"] == "password_refused"


def test_a11_digits_before_a_line_break_are_no_error(
    client: TestClient, admin: dict[str, str]
) -> None:
    password = "my pin is 123456\nthanks a lot"
    data = {"username": "ada", "email": "ada@example.com", "password": password}

    assert client.post("/api/v1/users", json=data, headers=admin).status_code in {201, 422}


def test_i3_a_body_is_small_where_nobody_is_known_yet(client: TestClient) -> None:
    answer = client.post(LOGIN, data={"username": "ada", "password": "x" * 20_000})

    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_log_in_is_not_sent_elsewhere(client: TestClient) -> None:
    form = {"username": "ada", "password": PASSWORD}

    assert client.post(f"{LOGIN}/", data=form, follow_redirects=False).status_code == 404


def test_a7_an_easy_password_is_refused_when_it_is_changed_or_set(
    client: TestClient, make_user: MakeUser, log_in: LogIn, admin: dict[str, str]
) -> None:
    number, ada = make_user("ada"), log_in("ada")
    change = {"current_password": PASSWORD, "new_password": EASY[0]}

    changed = client.post("/api/v1/auth/password", json=change, headers=ada)
    reset = client.patch(f"/api/v1/users/{number}", json={"password": EASY[0]}, headers=admin)

    assert (changed.status_code, reset.status_code) == (422, 422)


def test_a8_a_change_needs_the_current_password_and_is_throttled(
    client: TestClient, visitor: dict[str, str]
) -> None:
    change = {"current_password": "not this one at all", "new_password": "nine dry owls on a roof"}

    statuses = [
        client.post("/api/v1/auth/password", json=change, headers=visitor).status_code
        for _ in range(6)
    ]

    assert statuses == [403] * 5 + [429]


def test_a8_a_new_password_is_looked_at_after_the_current_one_was_right(
    client: TestClient, visitor: dict[str, str]
) -> None:
    """Looking costs a processor more than hashing; and to try again is no wrong guess."""

    def change(current: str) -> int:
        passwords = {"current_password": current, "new_password": EASY[0]}
        return client.post("/api/v1/auth/password", json=passwords, headers=visitor).status_code

    assert change("not this one at all") == 403
    assert [change(PASSWORD) for _ in range(6)] == [422] * 6


def test_a9_fifty_guesses_at_once_are_five(
    client: TestClient, make_user: MakeUser, verified: Counter[str]
) -> None:
    make_user("ada")

    def guess(number: int) -> int:
        form = {"username": "ada", "password": f"wrong password {number}"}
        return client.post(LOGIN, data=form).status_code

    with ThreadPoolExecutor(10) as guessers:
        statuses = Counter(guessers.map(guess, range(50)))

    assert statuses == {401: 5, 429: 45}
    assert verified.total() == 5


@pytest.mark.parametrize("username", ["ada", "nobody", "ada@example.com", "nobody@example.com"])
def test_a9_who_does_not_exist_is_throttled_like_who_does(
    client: TestClient, make_user: MakeUser, username: str
) -> None:
    make_user("ada")
    form = {"username": username, "password": "wrong password, this one"}

    answers = [client.post(LOGIN, data=form) for _ in range(6)]

    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert answers[-1].headers["retry-after"] == "2"
    assert answers[-1].json()["detail"] == "Too many attempts. Try again later."


def test_a9_an_address_is_throttled_across_accounts_and_a_restart(
    client: TestClient, make_settings: MakeSettings
) -> None:
    statuses = [
        client.post(LOGIN, data={"username": f"user-{n}", "password": PASSWORD}).status_code
        for n in range(31)
    ]
    with TestClient(create_app(make_settings())) as another:
        after = another.post(LOGIN, data={"username": "anyone", "password": PASSWORD})

    assert statuses == [401] * 30 + [429]
    assert after.status_code == 429
    assert 0 < int(after.headers["retry-after"]) <= 300


def test_a9_a_right_password_clears_the_account_and_is_not_counted_to_the_address(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")
    for _ in range(4):
        client.post(LOGIN, data={"username": "ada", "password": "wrong password, this one"})

    for _ in range(31):
        log_in("ada")

    assert execute(rows, "SELECT attempts FROM throttles") == [(4,)]


def test_a9_a_new_name_forgives_nothing(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    ada = log_in("ada")
    wrong = "wrong password, this one"
    for _ in range(5):
        client.post(LOGIN, data={"username": "ada", "password": wrong})

    assert client.patch(ME, json={"username": "eva"}, headers=ada).status_code == 200

    assert client.post(LOGIN, data={"username": "eva", "password": wrong}).status_code == 429


def test_a10_a_locked_out_user_goes_on_with_the_sessions_there_are(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")
    ada = log_in("ada")
    for _ in range(7):
        client.post(LOGIN, data={"username": "ada", "password": "wrong password, this one"})

    assert client.post(LOGIN, data={"username": "ada", "password": PASSWORD}).status_code == 429
    assert client.get("/api/v1/users/me", headers=ada).status_code == 200
    move_clock(rows, "throttles", "since", -16 * 60)
    assert client.post(LOGIN, data={"username": "ada", "password": PASSWORD}).status_code == 200


def test_a10_the_longest_wait_is_a_quarter_of_an_hour_until_fifty_failed(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine, admin: dict[str, str]
) -> None:
    number = make_user("ada")
    form = {"username": "ada", "password": PASSWORD}
    client.post(LOGIN, data={**form, "password": "wrong password, this one"})
    execute(rows, "UPDATE throttles SET attempts = 49 WHERE attempts = 1")
    assert int(client.post(LOGIN, data=form).headers["retry-after"]) in range(890, 901)
    execute(rows, "UPDATE throttles SET attempts = 50 WHERE attempts = 49")
    move_clock(rows, "throttles", "since", -10 * 86_400)
    assert client.post(LOGIN, data=form).status_code == 429

    new = {"password": "nine dry owls on a roof"}
    assert client.patch(f"/api/v1/users/{number}", json=new, headers=admin).status_code == 200
    log_in("ada", new["password"])


def test_a9_what_was_counted_is_forgotten_after_a_month_unless_the_account_is_locked(
    client: TestClient, rows: Engine
) -> None:
    form = {"password": "wrong password, this one"}
    for username in ("first", "second"):
        client.post(LOGIN, data={**form, "username": username})
    execute(rows, "UPDATE throttles SET attempts = 50 WHERE attempts = 1 AND id = 1")
    move_clock(rows, "throttles", "since", -29 * 86_400)
    client.post(LOGIN, data={**form, "username": "third"})
    month = execute(rows, "SELECT attempts FROM throttles ORDER BY attempts")
    move_clock(rows, "throttles", "since", -2 * 86_400)

    client.post(LOGIN, data={**form, "username": "fourth"})

    # The address, and each name that is not forgotten.
    assert month == [(1,), (1,), (1,), (50,)]
    assert execute(rows, "SELECT attempts FROM throttles ORDER BY attempts") == month
    second = f"SELECT count(*) FROM throttles WHERE key_hash = '{account_key('second')}'"
    assert execute(rows, second) == [(0,)]


def test_a9_whoever_is_refused_waits_for_no_lock(
    client: TestClient, make_settings: MakeSettings, rows: Engine
) -> None:
    form = {"username": "ada", "password": "wrong password, this one"}
    assert [client.post(LOGIN, data=form).status_code for _ in range(5)] == [401] * 5
    execute(rows, "UPDATE throttles SET attempts = 20 WHERE attempts = 5")

    async def refused_beside_a_writer() -> float:
        async with Database(make_settings()) as database, database.writers.begin() as writer:
            await writer.execute(text("DELETE FROM throttles WHERE attempts > 1000"))
            await writer.execute(text("UPDATE throttles SET attempts = attempts"))
            started = time.monotonic()
            assert (await asyncio.to_thread(client.post, LOGIN, data=form)).status_code == 429
            return time.monotonic() - started

    assert asyncio.run(refused_beside_a_writer()) < 2


def test_a9_a_counter_that_a_log_in_clears_meanwhile_is_begun_anew(
    make_settings: MakeSettings, make_user: MakeUser
) -> None:
    """On PostgreSQL, its row could be deleted between being looked for and being locked."""
    make_user("ada")
    workers = [TestClient(create_app(make_settings())) for _ in range(2)]
    with workers[0], workers[1], ThreadPoolExecutor(2) as people:
        assert {worker.get(ME).status_code for worker in workers} == {401}
        form = {"username": "ada", "password": PASSWORD}
        statuses = Counter(
            people.map(lambda n: workers[n % 2].post(LOGIN, data=form).status_code, range(30))
        )

    assert statuses == {200: 30}


def test_a8_right_passwords_are_changed_thirty_times_from_an_address_and_no_more(
    client: TestClient, visitor: dict[str, str], rows: Engine
) -> None:
    """Each costs the work of several log-ins."""
    change = {"current_password": PASSWORD, "new_password": EASY[0]}
    execute(rows, "UPDATE throttles SET attempts = 29")

    statuses = [
        client.post("/api/v1/auth/password", json=change, headers=visitor).status_code
        for _ in range(2)
    ]

    assert statuses == [422, 429]


def test_a11_no_password_takes_longer_to_estimate_than_a_few_hashes() -> None:
    """Both are measured here: what is slow for one is slow for the other."""
    slow = "0e79(9s@$[t6+<{@b|+4%594i|1(6[2e" * 8

    def seconds(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    estimated = min(seconds(lambda: guesses(slow)) for _ in range(5))
    hashed = min(seconds(lambda: HASHING.hash(b"to compare with")) for _ in range(5))

    assert estimated < 10 * hashed


def test_a7_a_long_password_is_no_easier_than_its_harder_end(
    client: TestClient, admin: dict[str, str]
) -> None:
    new = {**ADA, "password": "passwordpassword1234 wet otters on a raft, seven"}

    assert client.post("/api/v1/users", json=new, headers=admin).status_code == 201


def test_a10_a_clock_that_was_set_back_locks_nobody_out(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    make_user("ada")
    form = {"username": "ada", "password": "wrong password, this one"}
    for _ in range(7):
        client.post(LOGIN, data=form)

    move_clock(rows, "throttles", "since", 365 * 86_400)

    assert client.post(LOGIN, data={**form, "password": PASSWORD}).status_code == 200


@pytest.mark.parametrize(
    "password",
    [b"%00", b"%ED%A0%80" * 9, b"%FF%FE", b"x" * 2**13, b"e%CC%81" * 9, b"%F0%9F%90%8E", b""],
    ids=["NUL", "surrogate", "no UTF-8", "8 KiB", "NFD", "emoji", "empty"],
)
def test_a11_no_password_breaks_the_log_in(
    client: TestClient, make_user: MakeUser, password: bytes
) -> None:
    make_user("ada")

    answer = client.post(
        LOGIN,
        content=b"username=ada&password=" + password,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )

    assert answer.status_code in {400, 401, 422}


def test_a11_what_is_too_long_for_a_name_or_password_is_never_composed(
    client: TestClient, admin: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Composing accents takes the square of how many there are: seconds for 100 kB."""
    lengths, normalize = [], unicodedata.normalize

    def measured(form: Literal["NFC", "NFKC"], text: str) -> str:
        lengths.append(len(text))
        return normalize(form, text)

    monkeypatch.setattr(unicodedata, "normalize", measured)
    marks = "a" + "\u0327\u0301" * 500

    statuses = [
        client.post(LOGIN, data={"username": name, "password": marks}).status_code
        for name in (marks, f"{marks}@example.com", "admin")
    ]
    for field in ADA:
        data = {**ADA, field: ADA[field] + marks}
        statuses.append(client.post("/api/v1/users", json=data, headers=admin).status_code)
    search = client.get("/api/v1/users", params={"q": marks}, headers=admin)

    assert statuses == [401] * 3 + [422] * 3
    assert search.status_code == 422
    assert max(lengths) <= 1024


@pytest.mark.parametrize("stored", ["x", "", "$argon2id$v=19$m=19456,t=2,p=1$AAAA$AAAA"])
def test_a12_a_stored_hash_that_is_broken_is_a_401(
    client: TestClient, make_user: MakeUser, rows: Engine, stored: str
) -> None:
    make_user("ada")
    execute(rows, "UPDATE users SET password = :stored", stored=stored)

    assert client.post(LOGIN, data={"username": "ada", "password": PASSWORD}).status_code == 401


def test_hashing_waits_its_turn_and_not_forever(
    client: TestClient, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_user("ada")
    release = threading.Event()
    monkeypatch.setattr(security, "LONGEST_QUEUE_SECONDS", 0.2)
    for _ in range(4):
        security.HASHING_THREADS.submit(release.wait, 10)

    answer = client.post(LOGIN, data={"username": "ada", "password": PASSWORD})
    release.set()

    assert answer.status_code == 503


def test_a_log_in_asks_for_no_scope(client: TestClient) -> None:
    form = {"username": "ada", "password": PASSWORD, "scope": "users:read"}

    assert client.post(LOGIN, data=form).status_code == 422


def test_i5_a_log_in_is_a_form(client: TestClient) -> None:
    answer = client.post(LOGIN, json={"username": "ada", "password": PASSWORD})

    assert answer.status_code == 415


def test_i5_a_log_in_is_no_form_of_many_parts(client: TestClient) -> None:
    """Each part of those names an encoding of its own, and some of them are slow to decode."""
    parts = {"username": (None, "ada"), "password": (None, PASSWORD)}

    assert client.post(LOGIN, files=parts).status_code == 415
