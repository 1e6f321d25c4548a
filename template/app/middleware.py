"""What every request passes and every response carries, whoever answers it."""

import logging
import time
from http import HTTPStatus
from uuid import uuid4

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import AppError, problem
from app.logs import address, quoted, request_id
from app.peers import add_peer_middleware
from app.settings import Settings

logger = logging.getLogger("app.request")

# For every route: one that takes uploads needs a larger limit here.
MAX_BODY_BYTES = 2**20

# OWASP HTTP Headers and REST Security cheat sheets. A route that needs a looser policy sets its own.
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
STRICT_TRANSPORT_SECURITY = "max-age=31536000"


def add_middleware(app: Starlette, settings: Settings) -> None:
    """The last one added is the first to see a request."""
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES)
    if settings.cors_origins:
        # Once more inside, so that a page of a listed origin can read a 500, too.
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
    add_peer_middleware(app, settings)


class RequestMiddleware:
    """Gives each request an id, a log line, and a response with the security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id.set(identity := uuid4().hex)
        address.set(scope["client"][0] if scope.get("client") else None)
        is_head = scope["method"] == "HEAD"
        started_at = time.perf_counter()
        status = HTTPStatus.INTERNAL_SERVER_ERROR.value

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=message["headers"])
                headers["X-Request-ID"] = identity
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers["Strict-Transport-Security"] = STRICT_TRANSPORT_SECURITY
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            # HEAD is GET without the body, on every route (RFC 9110, section 9.3.2).
            await self.app({**scope, "method": "GET"} if is_head else scope, receive, finish)
        finally:
            milliseconds = round((time.perf_counter() - started_at) * 1000, 1)
            fields = {"status": status, "milliseconds": milliseconds}
            logger.info("%s %s", scope["method"], quoted(scope["path"]), extra=fields)


class ProblemMiddleware:
    """Turns what no error handler sees into problem details.

    That is an unhandled exception, and the plain text of the host, CORS and body checks.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if declared_length(scope) > MAX_BODY_BYTES:
            # The limit beneath notices when the body is read: never, in a route that reads none.
            await problem(scope["path"], HTTPStatus.REQUEST_ENTITY_TOO_LARGE)(scope, receive, send)
            return
        started = False
        refusal: Message | None = None

        async def convert(message: Message) -> None:
            nonlocal started, refusal
            if message["type"] == "http.response.start":
                started = True
                if is_plain_refusal(message):
                    refusal = message
                    return
            if refusal is None:
                await send(message)
            elif not message.get("more_body"):
                sentence = message.get("body", b"").decode("utf-8", "replace")[:200]
                response = problem(scope["path"], refusal["status"], sentence)
                kept = [pair for pair in refusal["headers"] if not pair[0].startswith(b"content-")]
                response.raw_headers.extend(kept)
                await response(scope, receive, send)

        try:
            await self.app(scope, receive, convert)
        except Exception:
            logger.exception("Unhandled error")
            if started:
                raise
            failure = problem(scope["path"], AppError.status_code, AppError.detail)
            await failure(scope, receive, send)


def declared_length(scope: Scope) -> int:
    length = Headers(scope=scope).get("Content-Length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else 0


def is_plain_refusal(message: Message) -> bool:
    content_type = MutableHeaders(raw=message["headers"]).get("Content-Type", "")
    return message["status"] >= HTTPStatus.BAD_REQUEST and content_type.startswith("text/plain")
