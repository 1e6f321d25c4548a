"""What applies to every request and every response, whichever route answers."""

import asyncio
import logging
import time
from http import HTTPStatus
from secrets import token_hex

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from app.core.clients import (
    REQUEST_ID_KEY,
    ArrivingBodies,
    ClientAddressMiddleware,
    ClientStalled,
    ClientTimeoutMiddleware,
)
from app.core.concurrency import ConcurrencyMiddleware
from app.core.errors import AppError, accepts, error_response, problem
from app.core.health import is_health_check
from app.core.logging import client_address, quote_path, request_id, trace_id, user_id
from app.core.settings import CoreSettings
from app.core.telemetry import enter_request

logger = logging.getLogger("app.request")

# OWASP HTTP Headers and REST Security cheat sheets. A response that sets one of them keeps it.
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_RAW_SECURITY_HEADERS = [(k.lower().encode(), v.encode()) for k, v in SECURITY_HEADERS.items()]
# These describe the plain text, not the problem details that replace it.
_CONTENT_HEADERS = {b"content-type", b"content-length", b"content-encoding", b"content-language"}
_RESPONSE_STARTS = {"http.response.start", "websocket.http.response.start"}
# Close codes of a WebSocket (RFC 6455, section 7.4.1).
_ABNORMAL_CLOSURE = 1006
_POLICY_VIOLATION = 1008
_INTERNAL_ERROR = 1011
STRICT_TRANSPORT_SECURITY = b"max-age=31536000"


def add_middleware(app: Starlette, settings: CoreSettings) -> None:
    """Add the middleware from the inside out: the last one sees a request first."""
    limit = settings.max_concurrent_requests
    arriving: ArrivingBodies = {}
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_body_bytes)
    app.add_middleware(ConcurrencyMiddleware, limit=limit, arriving=arriving)
    if settings.cors_origins:
        # A second one inside, so that a page of a listed origin can read a 500, too.
        app.add_middleware(ProblemMiddleware)
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", *settings.cors_headers],
            expose_headers=["Location", "Retry-After", "X-Request-ID"],
        )
    app.add_middleware(HostMiddleware, allowed_hosts=settings.allowed_hosts, www_redirect=False)
    app.add_middleware(ProblemMiddleware)
    app.add_middleware(SocketMiddleware)
    app.add_middleware(RequestMiddleware)
    app.add_middleware(ClientTimeoutMiddleware, max_bodies=limit, arriving=arriving)
    app.add_middleware(ClientAddressMiddleware, proxies=settings.trusted_proxies)


class HostMiddleware(TrustedHostMiddleware):
    """Rejects other hosts, except for health checks: a load balancer may send an address."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_health_check(scope):
            return await self.app(scope, receive, send)
        await super().__call__(scope, receive, send)


class RequestMiddleware:
    """Gives each request an id and a log line, and its response the security headers.

    A WebSocket gets the same. Its line is written when it closes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        request_id.set(this_id := scope.get(REQUEST_ID_KEY) or token_hex(16))
        # A pipelined request starts in the context of the one before.
        user_id.set(None)
        trace_id.set(enter_request(scope))
        client_address.set(scope["client"][0] if scope.get("client") else None)
        method = scope.get("method", "WEBSOCKET")
        is_head = method == "HEAD"
        started_at = time.perf_counter()
        status = HTTPStatus.INTERNAL_SERVER_ERROR.value

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] in _RESPONSE_STARTS:
                status = message["status"]
                _add_headers(message, scope, this_id)
            elif message["type"] == "websocket.accept":
                status = HTTPStatus.SWITCHING_PROTOCOLS.value
                message = {**message, "headers": [*message.get("headers", ())]}
                MutableHeaders(raw=message["headers"])["X-Request-ID"] = this_id
            elif message["type"] == "websocket.close" and status != HTTPStatus.SWITCHING_PROTOCOLS:
                status = HTTPStatus.FORBIDDEN.value
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            # Every GET route also answers HEAD, without a body (RFC 9110, section 9.3.2).
            as_get = is_head and not accepts(scope["app"].routes, scope, "HEAD")
            inner_scope = {**scope, "method": "GET"} if as_get else scope
            await self.app(inner_scope, receive, send_with_headers)
        finally:
            milliseconds = round((time.perf_counter() - started_at) * 1000, 1)
            fields = {"status": status, "milliseconds": milliseconds}
            logger.info("%s %s", method, quote_path(scope["path"]), extra=fields)


def _add_headers(message: Message, scope: Scope, this_id: str) -> None:
    own = {b"x-request-id": this_id.encode()}
    if scope["scheme"] in {"https", "wss"}:
        own[b"strict-transport-security"] = STRICT_TRANSPORT_SECURITY
    received = dict(scope["headers"])
    if b"transfer-encoding" in received and b"content-length" in received:
        # A proxy may have read another end of this request (RFC 9112, section 6.1).
        own[b"connection"] = b"close"
    kept = [item for item in message["headers"] if item[0] not in own]
    given = {name for name, _ in kept}
    missing = [item for item in _RAW_SECURITY_HEADERS if item[0] not in given]
    message["headers"] = [*kept, *own.items(), *missing]


class SocketMiddleware:
    """Closes an open WebSocket with a code where a request would get an error response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            return await self.app(scope, receive, send)
        is_open = is_rejected = False

        async def convert(message: Message) -> None:
            nonlocal is_open, is_rejected
            if message["type"] == "websocket.accept":
                is_open = True
            elif message["type"] == "websocket.http.response.start":
                if is_open:
                    code = _POLICY_VIOLATION if message["status"] < 500 else _INTERNAL_ERROR
                    return await send({"type": "websocket.close", "code": code, "reason": ""})
                is_rejected = True
            elif message["type"] == "websocket.http.response.body" and is_open:
                return
            try:
                await send(message)
            except OSError:
                # Starlette does this only for a socket that is open.
                raise WebSocketDisconnect(_ABNORMAL_CLOSURE) from None

        try:
            await self.app(scope, receive, convert)
        except WebSocketDisconnect:
            # A route does not have to handle that its client has gone.
            return
        except Exception:
            logger.exception("Unhandled error")
            response = error_response(scope["path"], AppError())
            await response(scope, receive, convert)
        if is_rejected:
            # Until the server has closed the connection, it mistakes the rejection for an error.
            await asyncio.sleep(0)


class ProblemMiddleware:
    """Answers with problem details where no error handler can.

    These are unhandled exceptions, and the plain text of the host, CORS and body size checks.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False
        plain_error: Message | None = None

        async def convert(message: Message) -> None:
            nonlocal started, plain_error
            if message["type"] == "http.response.start":
                started = True
                if _is_plain_error(message):
                    plain_error = message
                    return
            if plain_error is None:
                await send(message)
            elif not message.get("more_body"):
                detail = message.get("body", b"").decode("utf-8", "replace")[:200]
                response = problem(scope["path"], plain_error["status"], detail)
                kept = [h for h in plain_error["headers"] if h[0].lower() not in _CONTENT_HEADERS]
                response.raw_headers.extend(kept)
                await response(scope, receive, send)

        try:
            await self.app(scope, receive, convert)
        except ClientStalled:
            raise
        except Exception:
            logger.exception("Unhandled error")
            if started:
                raise
            response = error_response(scope["path"], AppError())
            await response(scope, receive, send)


def _is_plain_error(message: Message) -> bool:
    headers = MutableHeaders(raw=message["headers"])
    is_error = message["status"] >= HTTPStatus.BAD_REQUEST
    return is_error and headers.get("Content-Type", "").startswith("text/plain")
