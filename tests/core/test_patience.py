"""Every wait for a client or for the database has a bound."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from starlette.types import Message

from app.core import clients, health
from app.core.routing import Router
from app.main import create_app
from tests.conftest import MakeSettings

NEVER = 30.0
Body = Callable[[], AsyncIterator[Message]]


def chunk(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def send_request(
    app: FastAPI,
    method: str,
    path: str,
    body: AsyncIterator[Message],
    *,
    reads: bool = True,
    enters: bool = True,
) -> list[Message]:
    """What the app sends back. The body comes as slowly as its iterator yields it.

    With `enters`, the app is started for this request alone.
    """
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver"), (b"content-type", b"application/json")],
        "client": ("192.0.2.1", 50000),
        "server": ("testserver", 80),
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return await anext(body)

    async def send(message: Message) -> None:
        if not reads and message["type"] == "http.response.body":
            await asyncio.sleep(NEVER)
        sent.append(message)

    async with app.router.lifespan_context(app) if enters else nullcontext():
        await asyncio.wait_for(app(scope, receive, send), NEVER / 3)
        # What was cancelled returns its connection.
        await asyncio.sleep(0.1)
    return sent


async def whole() -> AsyncIterator[Message]:
    yield chunk(b"", more=False)
    await asyncio.sleep(NEVER)


async def stalled() -> AsyncIterator[Message]:
    yield chunk(b'{"a')
    await asyncio.sleep(NEVER)


async def trickling() -> AsyncIterator[Message]:
    while True:
        yield chunk(b" ")
        await asyncio.sleep(0.05)


async def steady() -> AsyncIterator[Message]:
    for _ in range(10):
        yield chunk(b" " * 1000)
        await asyncio.sleep(0.05)
    yield chunk(b"{}", more=False)
    await asyncio.sleep(NEVER)


@pytest.fixture
def body_app(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(clients, "BODY_SECONDS", 0.2)

    @app.post("/json")
    async def read(numbers: dict[str, int]) -> int:
        return len(numbers)

    @app.post("/raw")
    async def read_raw(request: Request) -> int:
        return len(await request.body())

    @app.post("/slowly")
    async def read_slowly(request: Request) -> int:
        received = 0
        async for part in request.stream():
            received += len(part)
            await asyncio.sleep(0.1)
        return received

    return app


@pytest.mark.parametrize("path", ["/json", "/raw", "/slowly"])
@pytest.mark.parametrize("body", [stalled, trickling])
def test_i13_a_body_that_does_not_arrive_is_a_408(body_app: FastAPI, path: str, body: Body) -> None:
    start, end = asyncio.run(send_request(body_app, "POST", path, body()))

    assert start["status"] == 408
    headers = dict(start["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"connection"] == b"close"
    assert b"took too long" in end["body"]


@pytest.mark.parametrize("path", ["/json", "/slowly"])
def test_i13_a_slow_body_and_a_slow_route_are_not_cut_short(body_app: FastAPI, path: str) -> None:
    start, _ = asyncio.run(send_request(body_app, "POST", path, steady()))

    assert start["status"] == 200


def test_i13_bodies_that_never_arrive_shut_nobody_out(make_settings: MakeSettings) -> None:
    """As many as there may be requests. When another one begins to arrive, the oldest ends."""
    app = create_app(make_settings(max_concurrent_requests=3))

    @app.post("/json")
    async def read(numbers: dict[str, int]) -> int:
        return len(numbers)

    @app.get("/read")
    async def answer() -> None: ...

    async def at(path: str, body: Body) -> int:
        method = "GET" if path == "/read" else "POST"
        start, *_ = await send_request(app, method, path, body(), enters=False)
        return int(start["status"])

    async def work() -> list[int]:
        async with app.router.lifespan_context(app):
            slow = [asyncio.ensure_future(at("/json", stalled)) for _ in range(3)]
            await asyncio.sleep(0.1)
            answers = [await at("/read", whole), await at("/json", steady)]
            waiting = [task.done() for task in slow]
            for task in slow[1:]:
                task.cancel()
        return [*answers, await slow[0], *waiting]

    assert asyncio.run(work()) == [200, 200, 408, True, False, False]


def test_i13_a_request_that_is_ended_while_it_works_ends_no_other(
    make_settings: MakeSettings,
) -> None:
    """It asks for the next part of its body after it was ended."""
    app = create_app(make_settings(max_concurrent_requests=3))

    @app.post("/{seconds}")
    async def read(seconds: float, request: Request) -> None:
        async for _ in request.stream():
            await asyncio.sleep(seconds)

    async def begin(path: str) -> int:
        start, *_ = await send_request(app, "POST", path, steady(), enters=False)
        return int(start["status"])

    async def work() -> list[int]:
        async with app.router.lifespan_context(app):
            uploads = []
            for path in ("/0.3", "/0", "/0", "/0"):
                uploads.append(asyncio.ensure_future(begin(path)))
                await asyncio.sleep(0.02)
            return await asyncio.gather(*uploads)

    assert asyncio.run(work()) == [408, 200, 200, 200]


async def gone(in_use: list[str]) -> AsyncIterator[Message]:
    yield chunk(b"", more=False)
    while not in_use:  # noqa: ASYNC110  (a route has added to it)
        await asyncio.sleep(0.01)
    yield {"type": "http.disconnect"}


@pytest.fixture
def in_use(app: FastAPI) -> list[str]:
    """The sessions that the new route GET /export has open."""
    found: list[str] = []
    router = Router()

    async def rows() -> AsyncIterator[bytes]:
        async with app.state.database.readers() as session:
            await session.execute(text("SELECT 1"))
            found.append("session")
            try:
                while True:
                    yield b"row"
            finally:
                found.remove("session")

    @router.get("/export")
    async def export() -> StreamingResponse:
        return StreamingResponse(rows())

    app.include_router(router)
    return found


def test_r7_a_client_that_stops_reading_gives_its_connection_back(
    app: FastAPI,
    in_use: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(clients, "SEND_SECONDS", 0.1)

    async def scenario() -> tuple[list[Message], list[str]]:
        return await send_request(app, "GET", "/export", whole(), reads=False), [*in_use]

    (start,), still_in_use = asyncio.run(scenario())

    assert start["status"] == 200
    assert still_in_use == []
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "stopped reading" in warning.getMessage()


def test_r7_a_client_that_goes_away_gives_its_connection_back(
    app: FastAPI, in_use: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> list[str]:
        await send_request(app, "GET", "/export", gone(in_use), reads=False)
        return [*in_use]

    assert asyncio.run(scenario()) == []
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


def test_r26_the_ready_check_answers_though_the_database_does_not(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "READY_SECONDS", 0.1)

    async def never(_: object) -> None:
        await asyncio.sleep(NEVER)

    monkeypatch.setattr(health, "migration_state", never)
    app = create_app(make_settings())

    started_at = time.monotonic()
    start, _ = asyncio.run(send_request(app, "GET", "/health/ready", whole()))

    assert start["status"] == 503
    assert time.monotonic() - started_at < NEVER / 3
