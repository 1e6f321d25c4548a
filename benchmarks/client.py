"""Requests that are compared, sent to an app behind its server or to one in this process."""

import asyncio
import base64
import http.client
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.databases import PASSWORD

Message = dict[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]
ONE_PAGE = 50


@dataclass
class Requests:
    """Where an app has the routes that are compared. A page begins after so many rows."""

    live: str
    me: str
    page: Callable[[int], str]
    create: str
    made: int = field(default=0)
    stamp: int = field(default_factory=lambda: time.time_ns() % 10**9)

    def next(self, scenario: str, users: int, dice: random.Random) -> tuple[str, str, bytes]:
        """Method, path and body of one more request."""
        if scenario == "create":
            self.made += 1
            name = f"new{self.made}of{self.stamp}"
            body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
            return "POST", self.create, json.dumps(body).encode()
        paths = {
            "no database": lambda: self.live,
            "me": lambda: self.me,
            "user": lambda: f"{self.create}/{dice.randint(2, users)}",
            "list": lambda: self.page(dice.randint(2, users - 2 * ONE_PAGE)),
            "first page": lambda: self.page(0),
            "last page": lambda: self.page(users - ONE_PAGE - 1),
        }
        return "GET", paths[scenario](), b""


def cursor(last_id: int) -> str:
    return base64.urlsafe_b64encode(str(last_id).encode()).decode().rstrip("=")


def ours() -> Requests:
    return Requests(
        live="/health/live",
        me="/api/v1/users/me",
        page=lambda n: f"/api/v1/users?limit=50&cursor={cursor(n)}",
        create="/api/v1/users",
    )


class Client:
    """One connection, and one request at a time."""

    def __init__(self, port: int, token: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers = {"Authorization": f"Bearer {token}"}

    def send(self, method: str, path: str, body: bytes) -> None:
        kind = {"Content-Type": "application/json"} if body else {}
        self.connection.request(method, path, body or None, {**self.headers, **kind})
        response = self.connection.getresponse()
        answer = response.read()
        if response.status not in {200, 201}:
            raise SystemExit(f"{method} {path}: {response.status} {answer.decode()}")


async def call(
    app: App, method: str, path: str, token: str, body: bytes = b""
) -> tuple[int, bytes]:
    """The status and the body of the answer of an app in this process."""
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
