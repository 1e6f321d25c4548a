"""Who is asking: the peer of the connection, unless TRUSTED_PROXIES names it as a proxy."""

import ipaddress
from typing import Any, cast

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.settings import Settings

# By default uvicorn believes every process of this machine: see its --forwarded-allow-ips.
BELIEVED_BY_UVICORN = "127.0.0.1"
IPV4_MAPPED = "::ffff:"


def add_peer_middleware(app: Starlette, settings: Settings) -> None:
    if settings.trusted_proxies:
        proxies = list(settings.trusted_proxies)
        app.add_middleware(cast(Any, ProxyHeadersMiddleware), trusted_hosts=proxies)
    app.add_middleware(PeerMiddleware)


class PeerMiddleware:
    """Takes back what uvicorn made of X-Forwarded-For and X-Forwarded-Proto: anyone can send them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        # What uvicorn makes of the header by default, and when it is told to believe everybody.
        self.readings = [
            ProxyHeadersMiddleware(cast(Any, app), trusted).trusted_hosts
            for trusted in (BELIEVED_BY_UVICORN, "*")
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            self.restore(scope)
            client = scope.get("client")
            # As a socket for both kinds of address names an IPv4 one; TRUSTED_PROXIES does not.
            if client and client[0].startswith(IPV4_MAPPED):
                scope["client"] = (client[0].removeprefix(IPV4_MAPPED), client[1])
        await self.app(scope, receive, send)

    def restore(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if "X-Forwarded-Proto" in headers:
            scope["scheme"] = "ws" if scope["type"] == "websocket" else "http"
        forwarded, client = ", ".join(headers.getlist("X-Forwarded-For")), scope.get("client")
        if not forwarded or not client:
            return
        claims = [reading.get_trusted_client_address(forwarded) for reading in self.readings]
        if tuple(client) not in claims:
            return
        # uvicorn writes port 0, unless the claim has one: then only where uvicorn believes it, which
        # is on loopback, can it be told from a real connection.
        if client[1] == 0 or is_loopback(scope.get("server")):
            scope["client"] = (BELIEVED_BY_UVICORN, 0)


def is_loopback(server: tuple[str, int | None] | None) -> bool:
    try:
        return server is not None and ipaddress.ip_address(server[0]).is_loopback
    except ValueError:
        return False
