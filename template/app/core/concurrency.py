"""How many requests a worker answers at once, and when each begins."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import ServiceUnavailable, error_response
from app.core.health import is_health_check


class ConcurrencyMiddleware:
    """Rejects requests above the limit at once, so that those in progress end in time.

    A request whose body is still arriving does not count: slow clients would shut out all others.
    Nor does a health check, because a busy process should not be restarted. uvicorn has such a
    limit, too, but counts idle connections and answers with plain text.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit
        self.in_progress = 0
        # An event loop, and the lock that a request holds for one cycle of it.
        self._turn: tuple[asyncio.AbstractEventLoop | None, asyncio.Lock] = (None, asyncio.Lock())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_health_check(scope):
            return await self.app(scope, receive, send)
        if self.in_progress >= self.limit:
            error = ServiceUnavailable("Too many requests are in progress. Try again in a moment.")
            response = error_response(scope["path"], error)
            return await response(scope, receive, send)
        self.in_progress += 1
        try:
            await self._wait_for_turn()
            request = _UncountedBody(self, receive, send)
            await self.app(scope, request.receive, request.send)
        finally:
            self.in_progress -= 1

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


class _UncountedBody:
    """A request does not count while it waits for its body, until its response begins."""

    def __init__(self, limiter: ConcurrencyMiddleware, receive: Receive, send: Send) -> None:
        self._limiter = limiter
        self._receive = receive
        self._send = send
        self._always_counts = False
        self._is_uncounted = False

    async def receive(self) -> Message:
        if self._always_counts or self._is_uncounted:
            return await self._receive()
        self._is_uncounted = True
        self._limiter.in_progress -= 1
        try:
            message = await self._receive()
        finally:
            self._count()
        if not message.get("more_body", False):
            self._always_counts = True
        return message

    async def send(self, message: Message) -> None:
        # A stream also receives, to hear of a client that has gone.
        self._always_counts = True
        self._count()
        await self._send(message)

    def _count(self) -> None:
        self._limiter.in_progress += self._is_uncounted
        self._is_uncounted = False
