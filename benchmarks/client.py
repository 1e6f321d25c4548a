"""Requests to an ASGI app in this process: no socket, no client library, one at a time."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]
ONE_PAGE = 50


@dataclass
class Requests:
    """Where an app has the routes that are compared, and with which token."""

    token: str
    user: Callable[[int], str]
    page: Callable[[int], str]
    create: str
    stamp: int
    made: int = field(default=0)

    def next(self, scenario: str, users: int, dice: random.Random) -> tuple[str, str, bytes]:
        """Method, path and body of one more request."""
        if scenario == "no database":
            return "GET", "/health/live", b""
        if scenario == "user":
            return "GET", self.user(dice.randint(2, users)), b""
        if scenario == "list":
            return "GET", self.page(dice.randint(2, users - 2 * ONE_PAGE)), b""
        if scenario == "first page":
            return "GET", self.page(0), b""
        if scenario == "last page":
            return "GET", self.page(users - ONE_PAGE - 1), b""
        self.made += 1
        name = f"new-{self.made}-{self.stamp % 10**9}"
        body = {"username": name, "email": f"{name}@example.com", "password": "not a secret 1"}
        return "POST", self.create, json.dumps(body).encode()


async def call(
    app: App, method: str, path: str, token: str, body: bytes = b""
) -> tuple[int, bytes]:
    """The status and the body of the answer."""
    plain, _, query = path.partition("?")
    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())]
    if body:
        headers.append((b"content-length", b"%d" % len(body)))
        headers.append((b"content-type", b"application/json"))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "path": plain,
        "raw_path": plain.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8001),
        "state": {},
    }
    is_sent = False
    status, parts = 0, []

    async def receive() -> Message:
        nonlocal is_sent
        if is_sent:
            await asyncio.Event().wait()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return status, b"".join(parts)
