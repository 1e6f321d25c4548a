"""What applies to every request and every response, whichever route answers."""

import logging
import time
from http import HTTPStatus
from typing import Any, cast
from uuid import uuid4

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware.body_limit import (
    MAX_BODY_SIZE_SCOPE_KEY,
    RequestBodyLimitMiddleware,
)
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.core.errors import AppError, ContentTooLarge, accepts, problem
from app.core.logging import client_address, quote_path, request_id
from app.core.settings import CoreSettings

logger = logging.getLogger("app.request")

# OWASP HTTP Headers and REST Security cheat sheets. A response that sets one of them keeps it.
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# These describe the plain text, and not the problem that replaces it.
_OF_THE_BODY = {b"content-type", b"content-length", b"content-encoding", b"content-language"}
STRICT_TRANSPORT_SECURITY = "max-age=31536000"


def add_middleware(app: Starlette, settings: CoreSettings) -> None:
    """Add the middleware from the inside out: the last one sees a request first."""
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_body_bytes)
    if settings.cors_origins:
        # A second one inside, so that a page of a listed origin can read a 500, too.
        app.add_middleware(ProblemMiddleware)
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Location", "Retry-After", "X-Request-ID"],
        )
    app.add_middleware(
        TrustedHostMiddleware, allowed_hosts=settings.allowed_hosts, www_redirect=False
    )
    app.add_middleware(ProblemMiddleware)
    app.add_middleware(RequestMiddleware)
    if settings.trusted_proxies:
        proxies = list(settings.trusted_proxies)
        app.add_middleware(cast(Any, ProxyHeadersMiddleware), trusted_hosts=proxies)
    app.add_middleware(IPv4AddressMiddleware)


class IPv4AddressMiddleware:
    """Writes an IPv4 client address as such: a dual-stack socket reports ::ffff:192.0.2.1."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client and client[0].startswith("::ffff:"):
            scope["client"] = (client[0].removeprefix("::ffff:"), client[1])
        await self.app(scope, receive, send)


class RequestMiddleware:
    """Gives each request an id and a log line, and its response the security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id.set(new_id := uuid4().hex)
        client_address.set(scope["client"][0] if scope.get("client") else None)
        is_head = scope["method"] == "HEAD"
        started_at = time.perf_counter()
        status = HTTPStatus.INTERNAL_SERVER_ERROR.value

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=message["headers"])
                headers["X-Request-ID"] = new_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers["Strict-Transport-Security"] = STRICT_TRANSPORT_SECURITY
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
            logger.info("%s %s", scope["method"], quote_path(scope["path"]), extra=fields)


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
                kept = [h for h in plain_error["headers"] if h[0].lower() not in _OF_THE_BODY]
                response.raw_headers.extend(kept)
                await response(scope, receive, send)

        try:
            await self.app(scope, receive, convert)
        except Exception:
            logger.exception("Unhandled error")
            if started:
                raise
            response = problem(scope["path"], AppError.status_code, AppError.detail)
            await response(scope, receive, send)


def _is_plain_error(message: Message) -> bool:
    content_type = MutableHeaders(raw=message["headers"]).get("Content-Type", "")
    return message["status"] >= HTTPStatus.BAD_REQUEST and content_type.startswith("text/plain")


async def reject_large_body(connection: HTTPConnection) -> None:
    """Reject a body by its Content-Length, before a route that reads no body does its work.

    Starlette's own check waits until the body is read, or until the response begins.
    """
    limit = connection.scope.get(MAX_BODY_SIZE_SCOPE_KEY)
    length = connection.headers.get("Content-Length", "")
    if limit is not None and length.isdecimal() and int(length[:20]) > limit:
        raise ContentTooLarge
