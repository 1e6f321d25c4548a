"""The generated app: every middleware and a real login. Only hashing in a create is left out."""

import base64
import importlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.client import App, Requests
from benchmarks.databases import ADMINISTRATOR, PASSWORD


@asynccontextmanager
async def opened(project: Path, database: Path) -> AsyncIterator[tuple[App, Requests]]:
    os.environ.update({"DATABASE_URL": f"sqlite:///{database}", "LOG_LEVEL": "WARNING"})
    os.chdir(project)
    sys.path.insert(0, str(project))
    app: Any = importlib.import_module("app.main").app
    async with app.router.lifespan_context(app):
        token = await log_in(app)
        users: Any = importlib.import_module("app.auth.users")
        users.hash_new_password = without_hashing
        yield (
            app,
            Requests(
                token=token,
                user=lambda n: f"/api/v1/users/{n}",
                page=lambda n: f"/api/v1/users?limit=50&cursor={cursor(n)}",
                create="/api/v1/users",
                stamp=time.time_ns(),
            ),
        )


async def log_in(app: App) -> str:
    """As a browser's form does it."""
    body = f"username={ADMINISTRATOR}&password={PASSWORD.replace(' ', '+')}".encode()
    answer: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        answer.append(message.get("body", b""))

    kind = (b"content-type", b"application/x-www-form-urlencoded")
    size = (b"content-length", b"%d" % len(body))
    path = "/api/v1/auth/login"
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"host", b"localhost"), kind, size],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8001),
    }
    await app(scope, receive, send)
    return str(json.loads(b"".join(answer))["access_token"])


def cursor(last_id: int) -> str:
    return base64.urlsafe_b64encode(str(last_id).encode()).decode().rstrip("=")


async def without_hashing(*_: object, **__: object) -> str:
    return "!"
