"""The clients of this service: which address they have, and how long they may take."""

import asyncio
import logging
import re
import time
from collections.abc import Container
from ipaddress import IPv6Address, ip_address
from typing import Any, cast

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

logger = logging.getLogger(__name__)

# What TRUSTED_PROXIES calls a proxy that connects to a Unix socket, where clients have no address.
_UNIX_SOCKET = "unix"

# The longest pause in a body. The whole may take as long, and one second more for each kilobyte.
BODY_SECONDS = 30.0
MIN_BODY_RATE = 1000
# How long a client may leave a part of the response unread.
SEND_SECONDS = 60.0

# The id that a trusted proxy has given to a request.
REQUEST_ID_KEY = "app.request_id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_FORWARDING_HEADERS = {b"x-forwarded-for", b"x-forwarded-proto", b"forwarded"}


class ClientAddressMiddleware:
    """Believes what a trusted proxy says of its client, and normalizes the address.

    A proxy that is not trusted is named once in the log: all of its clients appear to have its
    address, so that failed logins of one lock out all others.
    """

    def __init__(self, app: ASGIApp, proxies: tuple[str, ...]) -> None:
        async def with_one_spelling(scope: Scope, receive: Receive, send: Send) -> None:
            client = scope.get("client")
            if client and ":" in client[0]:
                scope["client"] = (_normalize(client[0]), client[1])
            await app(scope, receive, send)

        believing = _believe(with_one_spelling, proxies)
        self.app = cast(ASGIApp, believing)
        self.trusted = believing.trusted_hosts
        self.has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        peer = peer_address(scope)
        if peer == _UNIX_SOCKET:
            scope["client"] = (_UNIX_SOCKET, 0)
        if peer in self.trusted:
            given = Headers(scope=scope).get("X-Request-ID", "")
            if _REQUEST_ID.fullmatch(given):
                scope[REQUEST_ID_KEY] = given
        elif not self.has_warned:
            self._warn(peer, scope)
        await self.app(scope, receive, send)

    def _warn(self, peer: str | None, scope: Scope) -> None:
        for name, _ in scope["headers"]:
            if name in _FORWARDING_HEADERS:
                self.has_warned = True
                logger.warning(
                    "Ignored %s from %s. If that is your proxy, list it in TRUSTED_PROXIES: "
                    "without it, all clients appear to have the address of the proxy",
                    name.decode().title(),
                    peer and _normalize(peer),
                )
                return


def _normalize(address: str) -> str:
    """One spelling for each address: a dual-stack socket reports ::ffff:192.0.2.1."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(parsed)


def peer_address(scope: Scope) -> str | None:
    """Who has connected to the server: a client, or the proxy in front of it."""
    if client := scope.get("client"):
        return str(client[0])
    server = scope.get("server")
    return _UNIX_SOCKET if server and server[1] is None else None


def trusted_peers(proxies: tuple[str, ...]) -> Container[str | None]:
    """The addresses of these proxies, as the server reports them."""
    return cast(Container[str | None], _believe(None, proxies).trusted_hosts)


def _believe(app: ASGIApp | None, proxies: tuple[str, ...]) -> ProxyHeadersMiddleware:
    # An IPv4 address may also be written as an IPv6 one.
    ipv4 = [proxy for proxy in proxies if ":" not in proxy and proxy != _UNIX_SOCKET]
    mapped = [_map_to_ipv6(proxy) for proxy in ipv4]
    return ProxyHeadersMiddleware(cast(Any, app), trusted_hosts=[*proxies, *mapped])


def _map_to_ipv6(proxy: str) -> str:
    address, _, length = proxy.partition("/")
    return f"::ffff:{address}/{96 + int(length or 32)}"


class ClientTimeoutMiddleware:
    """Ends a request whose client stops sending the body, or stops reading the response.

    Otherwise the client could hold a database connection for as long as it likes. If more bodies
    than the limit have not arrived completely, the oldest request ends.
    """

    def __init__(self, app: ASGIApp, max_bodies: int, arriving: "ArrivingBodies") -> None:
        self.app = app
        self.max_bodies = max_bodies
        self.arriving = arriving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        body = _TimedBody(receive, self.arriving, self.max_bodies)
        stalled = False

        async def send_in_time(message: Message) -> None:
            nonlocal stalled
            # A stream counts, though it still receives: to hear of a client that has gone.
            self.arriving.pop(body, None)
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                stalled = True
                raise ClientStalled from None

        try:
            await self.app(scope, body.receive, send_in_time)
        except Exception:
            if not stalled:
                raise
            # The server closes the connection, since the response is not complete.
            logger.warning("The client stopped reading the response")
        finally:
            self.arriving.pop(body, None)


class ClientStalled(Exception):
    """The client has not read the response for too long."""


def _too_slow() -> HTTPException:
    return HTTPException(408, "The request body took too long.", {"Connection": "close"})


class _TimedBody:
    def __init__(self, receive: Receive, arriving: "ArrivingBodies", limit: int) -> None:
        self._receive = receive
        self._arriving = arriving
        self._limit = limit
        self._seconds_left = BODY_SECONDS
        self._is_complete = False
        self._is_given_up = False
        self._timeout: asyncio.Timeout | None = None

    async def receive(self) -> Message:
        if self._is_complete:
            # Waits for the client to disconnect.
            return await self._receive()
        if self._is_given_up:
            raise _too_slow()
        self._arriving[self] = None
        if len(self._arriving) > self._limit:
            next(iter(self._arriving)).give_up()
        started_at = time.perf_counter()
        try:
            async with asyncio.timeout(min(self._seconds_left, BODY_SECONDS)) as self._timeout:
                message = await self._receive()
        except TimeoutError:
            raise _too_slow() from None
        finally:
            self._timeout = None
        # Only the time that the app waited counts.
        self._seconds_left -= time.perf_counter() - started_at
        self._seconds_left += len(message.get("body", b"")) / MIN_BODY_RATE
        self._is_complete = not message.get("more_body", False)
        if self._is_complete:
            self._arriving.pop(self, None)
        return message

    def give_up(self) -> None:
        """Wait no longer. So slow clients cannot shut out the others."""
        del self._arriving[self]
        self._is_given_up = True
        if self._timeout and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())


# Those that have begun to arrive, before the response begins. The oldest is the first.
ArrivingBodies = dict[_TimedBody, None]
