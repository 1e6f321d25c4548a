"""`serve` as the process of a production server: where it listens, and every signal it gets."""

import base64
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.conftest import Migrated
from tests.support.clusters import wait_until
from tests.support.machines import Machine
from tests.support.projects import Generate
from tests.support.servers import Server

pytestmark = pytest.mark.slow

SERVE = [sys.executable, "-m", "app", "serve"]
REQUEST = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n"
ROUTES = """
import asyncio
import os
import time
from fastapi import WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from app.api.deps import SessionDep

@app.get("/pid")
async def read_pid():
    return os.getpid()

@app.get("/busy")
async def compute():
    time.sleep(0.02)
    return os.getpid()

@app.get("/slow")
async def wait():
    await asyncio.sleep(2)

@app.post("/numbers/{number}")
async def write(number: int, session: SessionDep):
    await session.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})
    await asyncio.sleep(0.02)

async def lines():
    while True:
        yield "line"
        await asyncio.sleep(0.1)

@app.get("/endless")
async def stream():
    return StreamingResponse(lines())

@app.websocket("/open")
async def stay_open(socket: WebSocket):
    await socket.accept()
    await socket.receive_text()
    await socket.close()

@app.websocket("/push")
async def push(socket: WebSocket):
    await socket.accept()
    while True:
        await socket.send_text("x" * 100_000)
"""


@pytest.fixture(scope="module")
def served(
    generate: Generate, migrated_once: Migrated, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("serve") / "project"
    shutil.copytree(migrated_once(generate(auth=False)), folder)
    with (folder / "app/main.py").open("a") as main:
        main.write(ROUTES)
    with closing(sqlite3.connect(folder / "app.db")) as database:
        database.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
    return folder


@contextmanager
def serving(machine: Machine, project: Path, *options: str, **environment: str) -> Iterator[Server]:
    with Server(machine, [*SERVE, *options], project, **environment) as server:
        yield server


@contextmanager
def connected(server: Server) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with closing(connection):
        yield connection


def workers_of(server: Server) -> set[int]:
    """The workers that answer. Each new connection goes to any of them."""
    return {server.get("/pid").json() for _ in range(30)}


def end(server: Server, how: signal.Signals = signal.SIGTERM) -> float:
    """Seconds until the server has ended. Only the parent gets the signal, as with systemd."""
    started_at = time.monotonic()
    os.kill(server.process.pid, how)
    server.process.wait(timeout=60)
    server.listener.join(timeout=30)
    return time.monotonic() - started_at


def ask_at(path: Path, target: bytes, headers: bytes = b"") -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(REQUEST % (target, headers))
        answer = b""
        while received := client.recv(65536):
            answer += received
    return answer


def is_answering(path: Path) -> bool:
    try:
        return ask_at(path, b"/health/live").startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def refusal(machine: Machine, project: Path, *command: str) -> str:
    """The only line of a `serve` that cannot listen."""
    code, output = machine.run(*command, cwd=project)
    assert code == 1, output
    (line,) = output.splitlines()
    assert line.startswith("Error: ")
    return line


# ---- where it listens ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_listens_on_a_unix_socket_and_removes_it_at_the_end(
    machine: Machine, served: Path, tmp_path: Path, workers: str
) -> None:
    path = tmp_path / "app.sock"
    command = [*SERVE, "--socket", str(path), "--workers", workers]
    claimed = b"X-Forwarded-For: 203.0.113.5\r\n"
    process = machine.popen(*command, cwd=served, environment={"TRUSTED_PROXIES": "unix"})
    try:
        wait_until(lambda: is_answering(path))
        mode = stat.S_IMODE(path.stat().st_mode)
        answer = ask_at(path, b"/api/v1/", claimed)
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=60)

    assert mode == 0o660
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nserver:" not in answer.lower()
    assert process.returncode == 0
    assert not path.exists()
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["address"] for line in lines if line["message"] == "GET /api/v1/"] == [
        "203.0.113.5"
    ]


def test_a_unix_socket_is_only_replaced_if_nothing_listens_on_it(
    machine: Machine, served: Path, tmp_path: Path
) -> None:
    path, file = tmp_path / "app.sock", tmp_path / "file"
    file.write_text("mine")
    command = [*SERVE, "--socket", str(path)]
    assert "file is not a socket: remove it" in refusal(
        machine, served, *SERVE, "--socket", str(file)
    )
    killed = machine.popen(*command, cwd=served)
    wait_until(lambda: is_answering(path))
    assert "app.sock is in use: stop the other server" in refusal(machine, served, *command)
    assert is_answering(path)
    killed.kill()
    killed.communicate(timeout=30)
    assert path.exists()

    second = machine.popen(*command, cwd=served)
    try:
        wait_until(lambda: is_answering(path))
    finally:
        second.terminate()
        second.communicate(timeout=30)
    assert not path.exists()
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "nowhere.invalid"], "unknown host nowhere.invalid: use an address"),
        (["--host", "203.0.113.1"], "203.0.113.1 is not an address of this machine"),
        (["--port", "80"], "port 80 is reserved: use one above 1023"),
        (["--port", "{used}"], "is in use: stop the other server"),
        (["--port", "{used}", "--workers", "2"], "is in use: stop the other server"),
        (["--socket", "missing/app.sock"], "in a folder that exists"),
        (["--socket", "x" * 200], "use a path of at most 100 bytes"),
    ],
    ids=["unknown host", "other machine", "reserved", "used", "used by 2", "folder", "too long"],
)
def test_serve_says_in_one_sentence_why_it_cannot_listen(
    machine: Machine, served: Path, options: list[str], said: str
) -> None:
    # Even root must not bind a reserved port here.
    limit = [shutil.which("setpriv") or "", "--bounding-set=-net_bind_service"]
    command = [*(limit if os.getuid() == 0 else []), *SERVE]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        used = str(other.getsockname()[1])

        line = refusal(machine, served, *command, *(o.format(used=used) for o in options))

    assert said in line


# ---- signals, and workers that are lost ---------------------------------------------------------


class Load:
    """Clients that write numbers, each over one connection as a proxy does, until they stop."""

    def __init__(self, port: int, clients: int = 6) -> None:
        self.port = port
        self.written: list[int] = []
        self.statuses: set[int] = set()
        self.broken = 0
        self.is_over = threading.Event()
        self.pool = ThreadPoolExecutor(clients)
        self.clients = [self.pool.submit(self.write, n) for n in range(clients)]

    def write(self, client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        number = client * 1_000_000
        while not self.is_over.is_set():
            number += 1
            try:
                connection.request("POST", f"/numbers/{number}")
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                self.broken += 1
                connection.close()
                # A server that has ended refuses connections.
                time.sleep(0.02)
            else:
                self.statuses.add(answer.status)
                self.written.append(number)
        connection.close()

    def stop(self) -> None:
        self.is_over.set()
        self.pool.shutdown()
        for client in self.clients:
            client.result()


def numbers_in(project: Path) -> set[int]:
    with closing(sqlite3.connect(project / "app.db")) as database:
        return {number for (number,) in database.execute("SELECT number FROM numbers")}


@pytest.fixture
def empty(served: Path) -> Path:
    with closing(sqlite3.connect(served / "app.db")) as database, database:
        database.execute("DELETE FROM numbers")
    return served


@pytest.mark.parametrize("workers", ["1", "2"])
def test_r24_sigterm_under_load_answers_every_request_that_it_began(
    machine: Machine, empty: Path, workers: str
) -> None:
    """A client whose connection is refused or closed without an answer knows to try again."""
    with serving(machine, empty, "--workers", workers) as server:
        load = Load(server.port)
        wait_until(lambda: len(load.written) > 30)
        end(server)
        load.stop()

    assert server.process.returncode == 0, server.output
    assert load.statuses == {200}
    assert numbers_in(empty) == set(load.written)


def test_workers_share_the_connections_that_a_proxy_keeps_open(
    machine: Machine, served: Path
) -> None:
    def ask(connection: http.client.HTTPConnection) -> bytes:
        connection.request("GET", "/busy")
        return connection.getresponse().read()

    with serving(machine, served, "--workers", "2") as server, ExitStack() as stack:
        wait_until(lambda: len(workers_of(server)) == 2)
        connections = [stack.enter_context(connected(server)) for _ in range(32)]
        with ThreadPoolExecutor(32) as clients:
            served_by = Counter(clients.map(ask, connections))

    assert len(served_by) == 2
    assert min(served_by.values()) >= 10


def test_an_idle_connection_stays_open_until_a_proxy_has_closed_it(
    machine: Machine, served: Path
) -> None:
    with serving(machine, served) as server, connected(server) as client:
        client.request("GET", "/pid")
        client.getresponse().read()
        # uvicorn would close it after five seconds.
        time.sleep(6)
        client.request("GET", "/pid")
        assert client.getresponse().status == 200


def test_an_idle_connection_is_closed_after_the_time_of_the_option(
    machine: Machine, served: Path
) -> None:
    with serving(machine, served, "--keep-alive", "1") as server, connected(server) as client:
        client.request("GET", "/pid")
        client.getresponse().read()
        assert client.sock.recv(1) == b""


def test_r46_a_worker_that_is_killed_under_load_comes_back_and_the_others_go_on(
    machine: Machine, empty: Path
) -> None:
    with serving(machine, empty, "--workers", "2") as server:
        wait_until(lambda: len(workers_of(server)) == 2)
        killed, other = workers_of(server)
        load = Load(server.port)
        wait_until(lambda: len(load.written) > 30)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: len(workers_of(server) - {killed}) == 2)
        load.stop()
        assert other in workers_of(server)

    # Each client is connected to one worker, and can lose one request.
    assert load.statuses == {200}
    assert load.broken <= 6
    assert set(load.written) <= numbers_in(empty)
    lines = [json.loads(line) for line in server.output.splitlines()]
    assert f"Child process [{killed}] died" in {line["message"] for line in lines}


def test_r46_workers_end_if_their_parent_is_killed(machine: Machine, served: Path) -> None:
    """Otherwise they would keep the port, and the next `serve` could not start."""
    with serving(machine, served, "--workers", "2") as server:
        wait_until(lambda: len(workers_of(server)) == 2)
        assert end(server, signal.SIGKILL) < 10

        with serving(machine, served, PORT=str(server.port)) as next_one:
            assert next_one.get("/health/ready").status == 200


def test_sighup_replaces_each_worker_and_says_when_the_last_one_is_new(
    machine: Machine, empty: Path
) -> None:
    with serving(machine, empty, "--workers", "2") as server:
        wait_until(lambda: len(workers_of(server)) == 2)
        before = workers_of(server)
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(lambda: not workers_of(server) & before)
        # The parent says so after the last old worker has ended.
        time.sleep(1)
        assert server.process.poll() is None

    assert "Traceback" not in server.output
    messages = [json.loads(line)["message"] for line in server.output.splitlines()]
    begun = messages.index("Received SIGHUP, restarting processes.")
    assert messages.index("Reload finished: 2 of 2 workers are new") > begun


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    "signals", [["SIGTERM", "SIGTERM"], ["SIGINT"]], ids=["two SIGTERM", "SIGINT"]
)
def test_r24_a_request_in_progress_is_answered_before_the_end(
    machine: Machine, served: Path, workers: str, signals: list[str]
) -> None:
    with (
        serving(machine, served, "--workers", workers) as server,
        ThreadPoolExecutor(1) as client,
    ):
        answer = client.submit(server.get, "/slow")
        time.sleep(0.5)
        for name in signals:
            os.kill(server.process.pid, signal.Signals[name])
            time.sleep(0.7)
        server.process.wait(timeout=30)

        assert answer.result().status == 200
    assert server.process.returncode == 0
    assert "Traceback" not in server.output


@pytest.mark.parametrize("workers", ["1", "2"])
def test_r24_an_endless_stream_and_a_stalled_client_end_in_the_graceful_timeout(
    machine: Machine, served: Path, workers: str
) -> None:
    stream = b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n"
    body = b"POST /numbers/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1"
    options = ["--workers", workers, "--graceful-timeout", "2"]
    with serving(machine, served, *options) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        for client, sent in zip(clients, (stream, body, b"GET /"), strict=True):
            client.sendall(sent)
        time.sleep(0.5)
        took = end(server)
        for client in clients:
            client.close()

    assert 1.5 < took < 15, server.output
    assert server.process.returncode == 0


def handshake(headers: str = "", path: str = "/open") -> bytes:
    key = base64.b64encode(b"0123456789abcdef").decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    ).encode()


def open_websocket(client: socket.socket, headers: str = "") -> bytes:
    """The response to the handshake."""
    client.sendall(handshake(headers))
    answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 101 ")
    return answer


@pytest.mark.parametrize("workers", ["1", "2"])
def test_r24_sigterm_closes_an_open_websocket_and_does_not_wait_for_it(
    machine: Machine, served: Path, workers: str
) -> None:
    with (
        serving(machine, served, "--workers", workers) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
    ):
        open_websocket(client)
        os.kill(server.process.pid, signal.SIGTERM)
        started_at = time.monotonic()
        frame = client.recv(65536)
        # A client answers the close frame with the same code, masked (RFC 6455, section 5.5.1).
        client.sendall(b"\x88\x82\0\0\0\0" + frame[2:4])
        server.process.wait(timeout=60)
        took = time.monotonic() - started_at

    assert frame[:1] == b"\x88"
    # Service restart.
    assert struct.unpack("!H", frame[2:4]) == (1012,)
    assert took < 15
    assert "Traceback" not in server.output


@pytest.mark.parametrize(("size", "code"), [(2**20, 1000), (2**20 + 1, 1009)])
def test_i3_a_message_of_a_websocket_has_at_most_1_mib_and_cannot_be_a_bomb(
    machine: Machine, served: Path, size: int, code: int
) -> None:
    """Compressed, a megabyte of zeros is a kilobyte, and one packet has hundreds of them."""
    with (
        serving(machine, served) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
    ):
        answer = open_websocket(client, "Sec-WebSocket-Extensions: permessage-deflate\r\n")
        client.sendall(b"\x81\xff" + struct.pack("!Q", size) + b"\0\0\0\0" + b"0" * size)
        frame = client.recv(65536)

    assert b"permessage-deflate" not in answer
    assert frame[:1] == b"\x88"
    assert struct.unpack("!H", frame[2:4]) == (code,)


@pytest.mark.parametrize(
    "headers",
    ["Content-Length: 5\r\n", "X-A: 1\r\n" * 200, f"X-A: {'1' * 20_000}\r\n"],
    ids=["a body", "many headers", "a long header"],
)
def test_i13_a_rejected_handshake_ends_its_connection_and_not_the_graceful_stop(
    machine: Machine, served: Path, headers: str
) -> None:
    with (
        serving(machine, served) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as client,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as other,
    ):
        client.sendall(handshake(headers))
        other.sendall(REQUEST % (b"/slow", b""))
        time.sleep(0.5)
        end(server)
        answer, slow = client.recv(65536), other.recv(65536)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer
    assert slow.startswith(b"HTTP/1.1 200 ")
    assert server.process.returncode == 0
    assert "Traceback" not in server.output


def test_r24_a_websocket_that_is_closing_does_not_end_the_requests_in_progress(
    machine: Machine, served: Path
) -> None:
    """Its client has closed it, but does not read what was sent before."""
    with (
        serving(machine, served) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as other,
    ):
        client.sendall(handshake(path="/push"))
        time.sleep(0.5)
        client.sendall(b"\x88\x82\0\0\0\0" + struct.pack("!H", 1000))
        other.sendall(REQUEST % (b"/slow", b""))
        time.sleep(0.5)
        took = end(server)
        slow = other.recv(65536)

    assert slow.startswith(b"HTTP/1.1 200 ")
    assert server.process.returncode == 0
    assert took < 15


def test_r47_requests_above_the_limit_get_a_problem_and_health_checks_an_answer(
    machine: Machine, served: Path
) -> None:
    with (
        serving(machine, served, MAX_CONCURRENT_REQUESTS="2") as server,
        ThreadPoolExecutor(2) as clients,
    ):
        slow = [clients.submit(server.get, "/slow") for _ in range(2)]
        time.sleep(0.7)
        answer = server.get("/pid")
        health = server.get("/health/ready")
        assert [one.result().status for one in slow] == [200, 200]
        assert server.get("/pid").status == 200

    assert answer.status == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["detail"].startswith("Too many requests are in progress")
    assert health.status == 200


def test_i13_more_connections_than_the_process_may_open_fill_no_log(
    machine: Machine, served: Path
) -> None:
    limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *SERVE]
    with Server(machine, limited, served) as server, ExitStack() as stack:
        first = stack.enter_context(connected(server))
        first.connect()
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        time.sleep(3)
        first.request("GET", "/pid")
        assert first.getresponse().status == 200
        stack.close()
        wait_until(lambda: server.get("/health/ready").status == 200)

    assert 1 <= server.output.count("out of system resource") < 10
