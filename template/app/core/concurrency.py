"""How many requests a worker answers at once, and when each begins."""

import asyncio
from collections.abc import Sized

from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors import ServiceUnavailable, error_response
from app.core.health import is_health_check


class ConcurrencyMiddleware:
    """Rejects requests above the limit at once, so that those in progress end in time.

    A request whose body is still arriving does not count: slow clients would shut out all others.
    Nor does a health check, because a busy process should not be restarted. uvicorn has such a
    limit, too, but counts idle connections and answers with plain text.
    """

    def __init__(self, app: ASGIApp, limit: int, arriving: Sized) -> None:
        self.app = app
        self.limit = limit
        self.arriving = arriving
        self.begun = 0
        # An event loop, and the lock that a request holds for one cycle of it.
        self._turn: tuple[asyncio.AbstractEventLoop | None, asyncio.Lock] = (None, asyncio.Lock())

    @property
    def in_progress(self) -> int:
        return self.begun - len(self.arriving)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_health_check(scope):
            return await self.app(scope, receive, send)
        if self.in_progress >= self.limit:
            error = ServiceUnavailable("Too many requests are in progress. Try again in a moment.")
            response = error_response(scope["path"], error)
            return await response(scope, receive, send)
        self.begun += 1
        try:
            await self._wait_for_turn()
            await self.app(scope, receive, send)
        finally:
            self.begun -= 1

    async def _wait_for_turn(self) -> None:
        """Let one request at a time begin, in the order of their arrival.

        A request that only reads SQLite does not wait for anything once it has begun. If many of
        them began in one cycle of the event loop, each step of another request, such as a write,
        would wait for all of them.
        """
        loop = asyncio.get_running_loop()
        loop_of_turn, turn = self._turn
        if loop_of_turn is not loop:
            # A server has one event loop, but tests may have several.
            turn = asyncio.Lock()
            self._turn = loop, turn
        await turn.acquire()
        loop.call_soon(turn.release)
