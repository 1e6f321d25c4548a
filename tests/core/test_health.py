"""Anybody may ask whether the app is ready, as often as they like."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from app.core import health
from app.core.health import MigrationState
from app.main import create_app
from tests.conftest import MakeSettings

READY = MigrationState(frozenset("a"), frozenset("a"), frozenset("a"))
NEVER = 30.0
Result = MigrationState | Exception
Check = Callable[[object], Awaitable[MigrationState]]
CheckedBy = Callable[[Check], FastAPI]


class Checks:
    """Stands for `migration_state`: each check takes 0.2 seconds and has the next result."""

    def __init__(self, *results: Result) -> None:
        self.results = list(results)
        self.begun = 0

    async def __call__(self, _: object) -> MigrationState:
        self.begun += 1
        result = self.results.pop(0)
        await asyncio.sleep(0.2)
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def checked_by(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> CheckedBy:
    """A new app, whose check this is."""

    def build(check: Check) -> FastAPI:
        monkeypatch.setattr(health, "migration_state", check)
        return create_app(make_settings())

    return build


async def ask(app: FastAPI) -> int:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
        return (await client.get("/health/ready")).status_code


def test_r26_requests_that_come_during_a_check_share_it(checked_by: CheckedBy) -> None:
    """Otherwise a crowd of them would wait for connections, until none is answered in time."""
    checks = Checks(READY, READY)
    app = checked_by(checks)

    async def scenario() -> list[int]:
        async with app.router.lifespan_context(app):
            crowd = await asyncio.gather(*(ask(app) for _ in range(50)))
            assert checks.begun == 1
            return [*crowd, await ask(app)]

    assert set(asyncio.run(scenario())) == {200}
    assert checks.begun == 2


def test_a_client_that_leaves_does_not_end_the_check_of_the_others(checked_by: CheckedBy) -> None:
    checks = Checks(READY)
    app = checked_by(checks)

    async def scenario() -> list[int | BaseException]:
        async with app.router.lifespan_context(app):
            first, *others = [asyncio.create_task(ask(app)) for _ in range(3)]
            await asyncio.sleep(0.1)
            first.cancel()
            return await asyncio.gather(first, *others, return_exceptions=True)

    gone, *others = asyncio.run(scenario())

    assert isinstance(gone, asyncio.CancelledError)
    assert others == [200, 200]
    assert checks.begun == 1


@pytest.mark.parametrize(
    "failure", [SQLAlchemyError("no database"), MigrationState(*[frozenset[str]()] * 3)]
)
def test_a_failed_check_holds_for_those_who_waited_for_it_and_no_longer(
    checked_by: CheckedBy, failure: Result
) -> None:
    app = checked_by(Checks(failure, READY))

    async def scenario() -> list[int]:
        async with app.router.lifespan_context(app):
            return [*await asyncio.gather(ask(app), ask(app)), await ask(app)]

    assert asyncio.run(scenario()) == [503, 503, 200]


def test_a_check_without_an_answer_ends_for_all_and_the_next_request_begins_another(
    checked_by: CheckedBy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health, "READY_SECONDS", 0.4)
    cancelled: list[str] = []

    async def check(_: object) -> MigrationState:
        if cancelled:
            return READY
        try:
            await asyncio.sleep(NEVER)
        finally:
            cancelled.append("check")
        raise AssertionError

    app = checked_by(check)

    async def scenario() -> list[int]:
        async with app.router.lifespan_context(app):
            early = asyncio.create_task(ask(app))
            await asyncio.sleep(0.2)
            return [await ask(app), await early, await ask(app)]

    assert asyncio.run(scenario()) == [503, 503, 200]
    assert cancelled == ["check"]
    assert caplog.text.count("Not ready: no answer from the database") == 1


def test_a_request_does_not_wait_for_a_check_of_another_event_loop(checked_by: CheckedBy) -> None:
    """Such as a test client that was not entered, and has a loop for each request."""
    app = checked_by(Checks(READY, READY))
    found: list[int] = []

    async def scenario() -> None:
        async with app.router.lifespan_context(app):
            first = asyncio.create_task(ask(app))
            await asyncio.sleep(0.1)
            other = threading.Thread(target=lambda: found.append(asyncio.run(ask(app))))
            other.start()
            found.append(await first)
            await asyncio.to_thread(other.join, 10)

    asyncio.run(scenario())

    assert found == [200, 200]
