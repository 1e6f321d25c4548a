"""How password guessing is slowed down, by name and by address."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from app.auth import passwords
from app.auth.throttle import hash_name
from app.core.database import Database
from app.main import create_app
from tests.auth_internals.helpers import (
    CHANGE_PASSWORD,
    LOGIN,
    ME,
    NEW_PASSWORD,
    PASSWORD,
    USERS,
    WRONG,
    LogIn,
    MakeUser,
    Statements,
    execute,
    header_of,
    move_clock,
)
from tests.conftest import MakeSettings

GUESS = {"username": "ada", "password": WRONG}
RIGHT = {"username": "ada", "password": PASSWORD}


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
def test_a9_an_unknown_name_is_throttled_like_a_known_one(
    client: TestClient, make_user: MakeUser, username: str
) -> None:
    make_user("ada")
    form = {"username": username, "password": WRONG}

    responses = [client.post(LOGIN, data=form) for _ in range(6)]

    assert [response.status_code for response in responses] == [401] * 5 + [429]
    assert responses[-1].headers["retry-after"] == "2"
    assert responses[-1].json()["detail"] == "Too many attempts. Try again later."


def test_a9_an_address_is_throttled_across_names_and_restarts(
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


def test_a9_a_correct_password_resets_the_name_and_is_not_counted_for_the_address(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")
    for _ in range(4):
        client.post(LOGIN, data=GUESS)

    for _ in range(31):
        log_in("ada")

    # Of the name there is no row; those of the known network and of its counter have no attempt.
    assert execute(rows, "SELECT attempts FROM throttles ORDER BY attempts DESC LIMIT 1") == [(4,)]


def test_a9_a_new_name_does_not_reset_the_attempts(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    make_user("ada")
    ada = log_in("ada")
    for _ in range(5):
        client.post(LOGIN, data=GUESS)

    assert client.patch(ME, json={"username": "eva"}, headers=ada).status_code == 200

    assert client.post(LOGIN, data={**GUESS, "username": "eva"}).status_code == 429


def test_a10_a_user_who_is_locked_out_keeps_existing_sessions(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")
    ada = log_in("ada")
    for _ in range(7):
        client.post(LOGIN, data=GUESS)

    assert client.post(LOGIN, data=RIGHT).status_code == 429
    assert client.get(ME, headers=ada).status_code == 200
    move_clock(rows, "throttles", "since", -16 * 60)
    assert client.post(LOGIN, data=RIGHT).status_code == 200


def test_a10_a_wait_is_at_most_an_hour_after_any_number_of_failures(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")
    client.post(LOGIN, data=GUESS)
    execute(
        rows, "UPDATE throttles SET attempts = 1000 WHERE key_hash = :ada", ada=hash_name("ada")
    )

    assert int(client.post(LOGIN, data=RIGHT).headers["retry-after"]) in range(3590, 3601)
    move_clock(rows, "throttles", "since", -3601)
    log_in("ada")


def test_a10_an_administrator_can_end_a_wait_with_a_new_password(
    client: TestClient, make_user: MakeUser, log_in: LogIn, admin: dict[str, str]
) -> None:
    user_id = make_user("ada")
    log_in("ada")
    for _ in range(6):
        client.post(LOGIN, data=GUESS)
    assert client.post(LOGIN, data=RIGHT).status_code == 429

    change = {"password": NEW_PASSWORD}
    assert client.patch(f"{USERS}/{user_id}", json=change, headers=admin).status_code == 200
    log_in("ada", NEW_PASSWORD)


HOME, OFFICE, ELSEWHERE = "2001:db8:1:1::{:x}", "198.51.100.7", "203.0.113.{}"


@pytest.fixture
def behind_proxy(make_settings: MakeSettings) -> Iterator[TestClient]:
    settings = make_settings(trusted_proxies="127.0.0.1")
    with TestClient(create_app(settings), client=("127.0.0.1", 50000)) as client:
        yield client


def log_in_from(
    client: TestClient, address: str, username: str = "ada", password: str = PASSWORD
) -> int:
    form = {"username": username, "password": password}
    return client.post(LOGIN, data=form, headers={"X-Forwarded-For": address}).status_code


def lock_from_elsewhere(client: TestClient, *usernames: str) -> None:
    for username in usernames:
        guesses = [
            log_in_from(client, ELSEWHERE.format(n), username, f"{WRONG} {n}") for n in range(8)
        ]
        assert guesses == [401] * 5 + [429] * 3


@pytest.mark.parametrize("username", ["ada", "ada@example.com"])
def test_a10_strangers_cannot_lock_a_user_out_of_a_known_network(
    behind_proxy: TestClient, make_user: MakeUser, username: str
) -> None:
    make_user("ada")
    assert log_in_from(behind_proxy, HOME.format(1)) == 200

    lock_from_elsewhere(behind_proxy, "ada", "ada@example.com")

    assert log_in_from(behind_proxy, OFFICE, username) == 429
    assert log_in_from(behind_proxy, HOME.format(2), username) == 200
    # Strangers gain nothing by that.
    assert log_in_from(behind_proxy, ELSEWHERE.format(9), username) == 429


def test_a10_attempts_without_a_possible_name_are_counted_by_address(
    behind_proxy: TestClient,
) -> None:
    """Such as a password in the wrong field."""
    typed = "no name, surely"

    statuses = [log_in_from(behind_proxy, OFFICE, f"{typed} {n}") for n in range(6)]

    assert statuses == [401] * 5 + [429]
    assert log_in_from(behind_proxy, ELSEWHERE.format(1), typed) == 401


@pytest.mark.parametrize("path", [LOGIN, "/account/forgot-password"])
def test_a10_a_page_of_another_site_cannot_use_up_the_attempts_of_its_visitors(
    make_settings: MakeSettings, make_user: MakeUser, path: str
) -> None:
    """A browser sends a form to any site, from the network of its user."""
    make_user("ada")
    settings = make_settings(cors_origins="https://www.example.com")
    evil = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    form = {**GUESS, "email": "ada@example.com"}
    with TestClient(create_app(settings)) as client:
        header_of(client, "ada")
        statuses = {client.post(path, data=form, headers=evil).status_code for _ in range(31)}
        own = {**evil, "Origin": "https://www.example.com"}
        listed = client.post(path, data=form, headers=own).status_code
        same = client.post(path, data=form, headers={"Sec-Fetch-Site": "same-origin"}).status_code
        # A page in which a link in an email was opened has such a request, too.
        page = client.get("/account/forgot-password", headers=evil).status_code

    assert statuses == {403}
    assert listed == same == (401 if path == LOGIN else 200)
    assert page == 200


def test_a9_guesses_from_a_known_network_are_limited_too(
    behind_proxy: TestClient, make_user: MakeUser
) -> None:
    make_user("ada")
    log_in_from(behind_proxy, HOME.format(1))

    statuses = [
        log_in_from(behind_proxy, HOME.format(n), username, WRONG)
        for n in range(4)
        for username in ("ada", "ada@example.com")
    ]

    assert statuses == [401] * 5 + [429] * 3
    assert log_in_from(behind_proxy, OFFICE) == 200


def test_a9_a_network_is_known_for_thirty_days_and_until_the_password_changes(
    behind_proxy: TestClient, make_user: MakeUser, admin: dict[str, str], rows: Engine
) -> None:
    user_id = make_user("ada")
    log_in_from(behind_proxy, HOME.format(1))
    lock_from_elsewhere(behind_proxy, "ada")
    assert log_in_from(behind_proxy, HOME.format(1)) == 200
    move_clock(rows, "throttles", "since", -30 * 86_400)
    lock_from_elsewhere(behind_proxy, "ada")
    assert log_in_from(behind_proxy, HOME.format(1)) == 429

    move_clock(rows, "throttles", "since", -86_400)
    assert log_in_from(behind_proxy, HOME.format(1)) == 200
    change = {"password": NEW_PASSWORD}
    behind_proxy.patch(f"{USERS}/{user_id}", json=change, headers=admin)
    lock_from_elsewhere(behind_proxy, "ada")
    assert log_in_from(behind_proxy, HOME.format(1), password=NEW_PASSWORD) == 429


def test_a10_a_user_who_changes_the_password_keeps_the_network_known(
    behind_proxy: TestClient, make_user: MakeUser
) -> None:
    make_user("ada")
    header = {**header_of(behind_proxy, "ada"), "X-Forwarded-For": HOME.format(1)}
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert behind_proxy.post(CHANGE_PASSWORD, json=change, headers=header).status_code == 200

    lock_from_elsewhere(behind_proxy, "ada")

    assert log_in_from(behind_proxy, HOME.format(1), password=NEW_PASSWORD) == 200


@pytest.mark.usefixtures("real_hashing")
def test_a9_sixty_users_can_log_in_from_one_address_at_once(
    client: TestClient, make_user: MakeUser
) -> None:
    """An attempt that is not judged yet has not failed."""
    names = [f"user-{n}" for n in range(60)]
    for name in names:
        make_user(name)

    def log_in(name: str) -> int:
        return client.post(LOGIN, data={"username": name, "password": PASSWORD}).status_code

    with ThreadPoolExecutor(60) as people:
        statuses = Counter(people.map(log_in, names))

    assert statuses == {200: 60}


@pytest.mark.usefixtures("real_hashing")
def test_a9_one_user_can_log_in_twenty_times_at_once(
    client: TestClient, make_user: MakeUser
) -> None:
    make_user("ada")

    with ThreadPoolExecutor(20) as people:
        logins = people.map(lambda _: client.post(LOGIN, data=RIGHT).status_code, range(20))
        statuses = Counter(logins)

    assert statuses == {200: 20}


@pytest.mark.parametrize("attempts", [0, 4, 11])
def test_a9_an_attempt_whose_password_was_not_verified_is_given_back(
    client: TestClient,
    make_user: MakeUser,
    rows: Engine,
    monkeypatch: pytest.MonkeyPatch,
    attempts: int,
) -> None:
    """With the start of its wait: the queue for hashing is full, and its threads are busy."""
    make_user("ada")
    client.post(LOGIN, data=GUESS)
    execute(rows, "UPDATE throttles SET attempts = :attempts", attempts=attempts)
    move_clock(rows, "throttles", "since", -4 * 60)
    counted = execute(rows, "SELECT key_hash, attempts, since FROM throttles ORDER BY id")
    is_free = Event()
    for _ in range(passwords._MAX_HASHES):
        passwords._HASHING_THREADS.submit(is_free.wait)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(passwords, "_MAX_QUEUE_SECONDS", 0.05)
            statuses = {client.post(LOGIN, data=RIGHT).status_code for _ in range(10)}
    finally:
        is_free.set()

    assert statuses == {503}
    assert execute(rows, "SELECT key_hash, attempts, since FROM throttles ORDER BY id") == counted
    assert client.post(LOGIN, data=RIGHT).status_code == 200


def test_a9_attempts_are_forgotten_after_a_day(client: TestClient, rows: Engine) -> None:
    """Any number of them. Otherwise attempts on many names would fill the table."""
    for username in ("first", "second"):
        client.post(LOGIN, data={**GUESS, "username": username})
    execute(rows, "UPDATE throttles SET attempts = 50 WHERE id = 1")
    move_clock(rows, "throttles", "since", -23 * 3600)
    client.post(LOGIN, data={**GUESS, "username": "third"})
    day = execute(rows, "SELECT attempts FROM throttles ORDER BY attempts")
    move_clock(rows, "throttles", "since", -2 * 3600)

    client.post(LOGIN, data={**GUESS, "username": "fourth"})

    # The address, and each name that is not forgotten.
    assert day == [(1,), (1,), (1,), (50,)]
    assert execute(rows, "SELECT attempts FROM throttles ORDER BY attempts") == [(1,)] * 3


def test_an_attempt_deletes_few_of_many_old_rows(client: TestClient, rows: Engine) -> None:
    """So that no attempt takes long, however many are old."""
    execute(
        rows,
        "INSERT INTO throttles (key_hash, attempts, since)"
        " WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 1999)"
        " SELECT CAST(:zeros AS text) || i, 50, :long_ago FROM n",
        zeros="0" * 60,
        long_ago=datetime(2020, 1, 1, tzinfo=UTC),
    )

    client.post(LOGIN, data=GUESS)

    assert execute(rows, "SELECT count(*) FROM throttles") == [(1000 - 20 + 2,)]


def test_a_login_finds_old_rows_by_an_index(
    make_user: MakeUser, log_in: LogIn, rows: Engine, sent: Statements
) -> None:
    if rows.dialect.name != "sqlite":
        pytest.skip("PostgreSQL plans by the number of rows")
    make_user("ada")
    sent.clear()
    log_in("ada")

    plans = []
    with rows.connect() as connection:
        for statement, parameters in [one for one in sent if one[0].startswith("DELETE")]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans += [str(row[-1]) for row in plan]
    assert any("ix_throttles_since" in step for step in plans)
    assert any("ix_sessions_last_used_at" in step for step in plans)
    assert [step for step in plans if step.startswith("SCAN")] == []


def test_a9_a_rejected_attempt_waits_for_no_lock(
    client: TestClient, make_settings: MakeSettings, rows: Engine
) -> None:
    assert [client.post(LOGIN, data=GUESS).status_code for _ in range(5)] == [401] * 5
    execute(rows, "UPDATE throttles SET attempts = 20 WHERE attempts = 5")

    async def seconds_during_a_write() -> float:
        async with Database(make_settings()) as database, database.writers.begin() as writer:
            await writer.execute(text("DELETE FROM throttles WHERE attempts > 1000"))
            await writer.execute(text("UPDATE throttles SET attempts = attempts"))
            started = time.monotonic()
            assert (await asyncio.to_thread(client.post, LOGIN, data=GUESS)).status_code == 429
            return time.monotonic() - started

    assert asyncio.run(seconds_during_a_write()) < 2


def test_a9_a_counter_can_be_reset_by_one_login_while_another_one_counts(
    make_settings: MakeSettings, make_user: MakeUser
) -> None:
    """On PostgreSQL, its row could be deleted between the query and the lock."""
    make_user("ada")
    workers = [TestClient(create_app(make_settings())) for _ in range(2)]
    with workers[0], workers[1], ThreadPoolExecutor(2) as people:
        assert {worker.get(ME).status_code for worker in workers} == {401}
        statuses = Counter(
            people.map(lambda n: workers[n % 2].post(LOGIN, data=RIGHT).status_code, range(30))
        )

    assert statuses == {200: 30}


def test_a10_a_clock_that_was_set_back_locks_nobody_out(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    make_user("ada")
    for _ in range(7):
        client.post(LOGIN, data=GUESS)

    move_clock(rows, "throttles", "since", 365 * 86_400)

    assert client.post(LOGIN, data=RIGHT).status_code == 200


@pytest.mark.parametrize(("field", "end"), [("username", ""), ("email", "@example.com")])
def test_a9_finding_taken_names_by_renaming_oneself_is_throttled(
    client: TestClient, make_user: MakeUser, visitor: dict[str, str], field: str, end: str
) -> None:
    make_user("ada")

    statuses = [
        client.patch(ME, json={field: name + end}, headers=visitor).status_code
        for name in ("ada", "first", "ada", "second", "ada", "third")
    ]

    assert statuses == [409, 200, 409, 200, 409, 429]


def test_a9_a_user_can_choose_a_new_name_again_after_a_day(
    client: TestClient, visitor: dict[str, str], rows: Engine
) -> None:
    assert client.patch(ME, json={"username": "first"}, headers=visitor).status_code == 200
    execute(rows, "UPDATE throttles SET attempts = 1000")
    assert client.patch(ME, json={"username": "second"}, headers=visitor).status_code == 429
    # The address may try again after five minutes, but not this user.
    move_clock(rows, "throttles", "since", -6 * 60)
    assert client.patch(ME, json={"username": "second"}, headers=visitor).status_code == 429

    move_clock(rows, "throttles", "since", -25 * 3600)

    assert client.patch(ME, json={"username": "second"}, headers=visitor).status_code == 200


@pytest.mark.parametrize(
    ("addresses", "status"),
    [
        ("2001:db8::{:x}", 429),
        ("2001:db8:0:{:x}::1", 401),
        ("198.51.100.{}", 401),
        # As a proxy with a dual-stack socket writes an IPv4 address.
        ("::ffff:198.51.100.{}", 401),
    ],
)
def test_a9_an_ipv6_address_is_counted_by_its_network(
    make_settings: MakeSettings, addresses: str, status: int
) -> None:
    """One household has all the addresses of a /64."""
    settings = make_settings(trusted_proxies="127.0.0.1")
    with TestClient(create_app(settings), client=("127.0.0.1", 50000)) as client:
        for number in range(31):
            form = {"username": f"user-{number}", "password": WRONG}
            header = {"X-Forwarded-For": addresses.format(number + 1)}
            last = client.post(LOGIN, data=form, headers=header).status_code

    assert last == status
