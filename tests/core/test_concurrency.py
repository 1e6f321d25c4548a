"""Requests begin one after the other, so that no step of another waits for all of them."""

import asyncio
import threading
from contextlib import suppress
from itertools import pairwise
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from app.core.clients import ArrivingBodies, ClientTimeoutMiddleware
from app.core.concurrency import ConcurrencyMiddleware


async def receive() -> Message:
    raise AssertionError("nobody asks for the body")


async def send(message: Message) -> None:
    raise AssertionError(f"nobody answers with {message}")


def request(number: int) -> Any:
    return {"type": "http", "path": "/", "number": number}


def test_between_two_requests_that_wait_for_nothing_others_get_their_turn() -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append("request")

    async def other() -> None:
        while True:
            events.append("step")
            await asyncio.sleep(0)

    async def work() -> None:
        middleware, stepping = ConcurrencyMiddleware(app, 100, {}), asyncio.ensure_future(other())
        await asyncio.gather(*(middleware(request(n), receive, send) for n in range(20)))
        stepping.cancel()

    asyncio.run(work())

    assert events.count("request") == 20
    assert ("request", "request") not in pairwise(events)


def test_requests_begin_in_the_order_of_their_arrival_and_a_cancelled_one_delays_none() -> None:
    begun: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(scope["number"])

    async def work() -> int:
        middleware = ConcurrencyMiddleware(app, 100, {})
        answers = [middleware(request(number), receive, send) for number in range(20)]
        tasks = [asyncio.ensure_future(answer) for answer in answers]
        await asyncio.sleep(0)
        for number in (1, 2, 19):
            tasks[number].cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        return middleware.in_progress

    assert asyncio.run(work()) == 0
    assert begun == [0, *range(3, 19)]


def test_a_stream_counts_though_it_still_listens_to_its_client() -> None:
    """Before that, it waits for its body."""
    counts: list[int] = []

    async def arrive_never() -> Message:
        return await asyncio.Future()

    async def take(_: Message) -> None:
        counts.append(middleware.in_progress)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        listening = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        counts.append(middleware.in_progress)
        await send({"type": "http.response.start", "status": 200})
        listening.cancel()
        await asyncio.sleep(0)
        counts.append(middleware.in_progress)

    arriving: ArrivingBodies = {}
    middleware = ConcurrencyMiddleware(app, 100, arriving)
    outermost = ClientTimeoutMiddleware(middleware, 100, arriving)
    asyncio.run(outermost(request(0), arrive_never, take))

    assert [*counts, middleware.in_progress] == [0, 1, 1, 0]


def test_a_request_does_not_wait_for_one_of_another_event_loop() -> None:
    """Such as a test client that was not entered, and has a loop for each request."""
    begun: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(scope["number"])
        if scope["number"] == 0:
            other = threading.Thread(target=lambda: asyncio.run(answer(1)), daemon=True)
            other.start()
            other.join(timeout=10)

    middleware = ConcurrencyMiddleware(app, 100, {})

    async def answer(number: int) -> None:
        await middleware(request(number), receive, send)
        begun.append(number)

    asyncio.run(answer(0))

    assert begun == [0, 1, 1, 0]
