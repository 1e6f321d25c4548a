"""The files of a project for nginx and Caddy, in front of a real `serve`."""

import base64
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.machines import Machine, base_python
from tests.support.projects import Generate, Project
from tests.support.proxies import Proxy, caddy, nginx
from tests.support.servers import Answer, Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Debian's nginx and Caddy"),
]

SERVE = [sys.executable, "-m", "app", "serve"]
PRODUCTION = {
    "ENVIRONMENT": "production",
    "ALLOWED_HOSTS": "api.example.com",
    "TRUSTED_PROXIES": "127.0.0.1",
    "DOCS": "true",
}
# Echoes what the proxy has forwarded.
PROBE = """
import asyncio

from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import StreamingResponse

probe = APIRouter(prefix="/probe")
may_go_on = asyncio.Event()


@probe.get("/client")
async def read_client(request: Request) -> dict[str, object]:
    client = request.client.host if request.client else None
    return {"client": client, "scheme": request.url.scheme, "headers": dict(request.headers)}


@probe.post("/size")
async def read_size(request: Request) -> int:
    return len(await request.body())


@probe.get("/stream")
async def stream() -> StreamingResponse:
    async def lines():
        yield b"first"
        await may_go_on.wait()
        yield b"last"

    return StreamingResponse(lines())


@probe.post("/go-on")
async def go_on() -> None:
    may_go_on.set()


@probe.websocket("/socket")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())
"""
INCLUDE = (
    "    from app.probe import probe\n\n    v1.include_router(probe)\n    app.include_router(v1)"
)


@pytest.fixture(scope="module")
def folder(generate: Generate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("proxies") / "project"
    shutil.copytree(generate(auth=False).path, copy)
    (copy / "app/probe.py").write_text(PROBE)
    routers = copy / "app/api/routers.py"
    source = routers.read_text("utf-8")
    routers.write_text(source.replace("    app.include_router(v1)", INCLUDE, 1), "utf-8")
    project = Project(copy, {})
    project.succeed("alembic", "upgrade", "head")
    # uvicorn's support of WebSockets, which a project adds when it needs it.
    install = ("pip", "install", "--quiet", "--target", str(copy / "added"), "websockets==15.0.1")
    project.succeed(*install)
    return copy


@contextmanager
def serving(folder: Path, home: Path, *options: str) -> Iterator[Server]:
    machine = Machine(home, {"python3": base_python()})
    added = {"PYTHONPATH": str(folder / "added"), "PYTHONDONTWRITEBYTECODE": "1"}
    with Server(machine, [*SERVE, *options], folder, **PRODUCTION, **added) as server:
        yield server


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(folder, tmp_path_factory.mktemp("machine") / "home") as server:
        yield server


def site(folder: Path, kind: str) -> str:
    return (folder / "deploy" / {"nginx": "nginx.conf", "caddy": "Caddyfile"}[kind]).read_text()


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def proxy(kind: str, folder: Path, server: Server) -> Iterator[Proxy]:
    run = {"nginx": nginx, "caddy": caddy}[kind]
    with run(site(folder, kind), server.port) as proxy:
        yield proxy


def test_clients_speak_tls_and_the_app_knows(proxy: Proxy) -> None:
    answer = proxy.send("GET", "/api/v1/")
    plain = proxy.get_plain("/api/v1/?a=1")

    assert answer.status == 200
    assert "max-age" in answer.headers["strict-transport-security"]
    assert plain.status == 308
    assert plain.headers["location"] == "https://api.example.com/api/v1/?a=1"


def test_a_load_balancer_asks_for_health_by_address(proxy: Proxy) -> None:
    assert proxy.get_plain("/health/ready").json() == {"status": "ok"}
    assert proxy.get_plain("/health/live").status == 200


def test_r49_the_address_is_the_clients_whatever_the_client_says(proxy: Proxy) -> None:
    claims = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "http",
        "X-Request-ID": "mine",
        "Forwarded": "for=203.0.113.9",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }

    answer = proxy.send("GET", "/api/v1/probe/client", headers=claims, source="127.0.0.7")

    seen = answer.json()
    assert (seen["client"], seen["scheme"]) == ("127.0.0.7", "https")
    assert not {"forwarded", "traceparent"} & set(seen["headers"])
    assert "203.0.113.9" not in str(seen)
    # The log of the app and that of the proxy have the same id.
    assert seen["headers"]["x-request-id"] == answer.headers["x-request-id"] != "mine"


def test_the_proxy_and_the_app_have_one_limit_for_bodies(proxy: Proxy) -> None:
    def upload(size: int) -> Answer:
        return proxy.send("POST", "/api/v1/probe/size", b"x" * size)

    assert upload(2**20).json() == 2**20
    # The app refuses while the proxy is still sending: an answer must not be cut off by that.
    for size in (2**20 + 1, 2**20 + 2**16) * 50:
        answer = upload(size)
        assert answer.status == 413, answer
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == 413
    for _ in range(20):
        chunks = (b"x" * 2**16 for _ in range(17))
        assert proxy.send("POST", "/api/v1/probe/size", chunks).status == 413


def test_a_refusal_before_nginx_has_sent_the_body_arrives(folder: Path, server: Server) -> None:
    with nginx(site(folder, "nginx"), server.port) as proxy:
        for _ in range(50):
            answer = proxy.send("POST", "/api/v1/unknown", b"x" * 2**20)
            assert (answer.status, answer.json()["status"]) == (404, 404)


def test_a_response_that_streams_arrives_in_parts(proxy: Proxy, server: Server) -> None:
    with proxy.connect() as connection:
        connection.request("GET", "/api/v1/probe/stream")
        response = connection.getresponse()
        assert response.read(5) == b"first"
        assert proxy.send("POST", "/api/v1/probe/go-on").status == 200
        assert response.read() == b"last"


def test_web_sockets_pass(proxy: Proxy) -> None:
    key = base64.b64encode(b"sixteen bytes ab").decode()
    text, mask = b"hello", b"abcd"
    masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(text))
    upgrade = (
        "GET /api/v1/probe/socket HTTP/1.1\r\nHost: api.example.com\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with proxy.connect() as connection:
        connection.sock.sendall(upgrade.encode())
        received = connection.sock.recv(4096)
        assert received.startswith(b"HTTP/1.1 101 "), received
        connection.sock.sendall(bytes([0x81, 0x80 | len(text)]) + mask + masked)
        deadline = time.monotonic() + 30
        while text not in received and time.monotonic() < deadline:
            received += connection.sock.recv(4096)

    assert bytes([0x81, len(text)]) + text in received


UNCOMMENT = {
    "nginx": lambda text: re.sub(
        r"    location / \{\n        proxy_pass .*\n    \}\n.*\n    # (location /shelf.*)",
        r"\1",
        text,
    ),
    "caddy": lambda text: re.sub(
        r"\thandle \{\n\t\timport app\n\t\}\n.*\n\t# (handle_path.*)\n\t#(.*)\n\t# (\})\n\t# (.*)",
        r"\1\n\2\n\3\n\4",
        text,
        count=1,
    ),
}


def test_the_app_can_be_under_a_path_and_its_absence_is_a_503(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    text = site(folder, kind)
    changed = UNCOMMENT[kind](text)
    assert changed != text
    run = {"nginx": nginx, "caddy": caddy}[kind]

    with (
        serving(folder, tmp_path / "home", "--root-path", "/shelf") as server,
        run(changed, server.port) as proxy,
    ):
        assert proxy.send("GET", "/shelf/api/v1/").status == 200
        assert proxy.send("GET", "/api/v1/").status == 404
        assert proxy.send("GET", "/shelf/openapi.json").json()["servers"] == [{"url": "/shelf"}]
        server.stop(signal.SIGTERM)
        down = proxy.send("GET", "/shelf/api/v1/")

    assert down.status == 503
    assert down.headers["retry-after"] == "5"
    assert down.headers["content-type"] == "application/problem+json"
    assert down.json()["status"] == 503
