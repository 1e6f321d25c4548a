"""How password guessing is slowed down, by name and by address."""

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from app.auth.throttle import hash_name
from app.core.database import Database
from app.main import create_app
from tests.auth_internals.helpers import (
    LOGIN,
    ME,
    NEW_PASSWORD,
    PASSWORD,
    USERS,
    WRONG,
    LogIn,
    MakeUser,
    execute,
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

    assert execute(rows, "SELECT attempts FROM throttles") == [(4,)]


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


def test_a10_a_wait_is_at_most_fifteen_minutes_until_fifty_attempts_have_failed(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine, admin: dict[str, str]
) -> None:
    user_id = make_user("ada")
    client.post(LOGIN, data=GUESS)
    execute(rows, "UPDATE throttles SET attempts = 49 WHERE attempts = 1")
    assert int(client.post(LOGIN, data=RIGHT).headers["retry-after"]) in range(890, 901)
    execute(rows, "UPDATE throttles SET attempts = 50 WHERE attempts = 49")
    move_clock(rows, "throttles", "since", -10 * 86_400)
    assert client.post(LOGIN, data=RIGHT).status_code == 429

    change = {"password": NEW_PASSWORD}
    assert client.patch(f"{USERS}/{user_id}", json=change, headers=admin).status_code == 200
    log_in("ada", NEW_PASSWORD)


def test_a9_attempts_are_forgotten_after_a_month_unless_the_name_is_locked(
    client: TestClient, rows: Engine
) -> None:
    for username in ("first", "second"):
        client.post(LOGIN, data={**GUESS, "username": username})
    execute(rows, "UPDATE throttles SET attempts = 50 WHERE attempts = 1 AND id = 1")
    move_clock(rows, "throttles", "since", -29 * 86_400)
    client.post(LOGIN, data={**GUESS, "username": "third"})
    month = execute(rows, "SELECT attempts FROM throttles ORDER BY attempts")
    move_clock(rows, "throttles", "since", -2 * 86_400)

    client.post(LOGIN, data={**GUESS, "username": "fourth"})

    # The address, and each name that is not forgotten.
    assert month == [(1,), (1,), (1,), (50,)]
    assert execute(rows, "SELECT attempts FROM throttles ORDER BY attempts") == month
    second = f"SELECT count(*) FROM throttles WHERE key_hash = '{hash_name('second')}'"
    assert execute(rows, second) == [(0,)]


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


def test_a9_finding_taken_names_by_renaming_oneself_is_throttled(
    client: TestClient, make_user: MakeUser, visitor: dict[str, str]
) -> None:
    make_user("ada")

    statuses = [
        client.patch(ME, json={"username": name}, headers=visitor).status_code
        for name in ("ada", "first", "ada", "second", "ada", "third")
    ]

    assert statuses == [409, 200, 409, 200, 409, 429]


def test_a9_a_user_can_choose_a_new_name_again_after_a_day(
    client: TestClient, visitor: dict[str, str], rows: Engine
) -> None:
    assert client.patch(ME, json={"username": "first"}, headers=visitor).status_code == 200
    execute(rows, "UPDATE throttles SET attempts = 1000")
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
