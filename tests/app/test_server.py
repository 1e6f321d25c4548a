"""Each variant on a real server: what tests that call the app in-process cannot see."""

import http.client
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Migrated
from tests.support.machines import Machine, base_python
from tests.support.projects import Generate, Project
from tests.support.servers import Server, free_port

pytestmark = pytest.mark.slow

UVICORN = [sys.executable, "-m", "uvicorn", "app.main:app"]
# As in production.
SERVE = [sys.executable, "-m", "app", "serve"]
PRODUCTION = {"ENVIRONMENT": "production", "ALLOWED_HOSTS": "api.example.com"}


@pytest.fixture
def migrated(project: Project, migrated_once: Migrated, tmp_path: Path) -> Path:
    return Path(shutil.copytree(migrated_once(project), tmp_path / "project"))


@pytest.fixture
def server(machine: Machine, migrated: Path) -> Iterator[Server]:
    with Server(machine, UVICORN, migrated, ENVIRONMENT="development") as server:
        yield server


LOGIN = """
from app.core.logging import user_id

@app.get("/as-user-7")
async def log_in():
    user_id.set(7)
"""
SLOW_ROUTE = """
import asyncio
from fastapi.responses import StreamingResponse

@app.post("/answers-slowly")
async def answer_slowly():
    async def parts():
        for _ in range(20):
            yield b"part"
            await asyncio.sleep(0.1)

    return StreamingResponse(parts())
"""
LARGE_ROUTE = """
from fastapi import Response

@app.get("/large")
async def answer_much():
    return Response(b"x" * 10_000_000)
"""
SHORT_LIMITS = """
from app.core import clients, server
server.HEADER_SECONDS = 2
clients.SEND_SECONDS = server.SEND_SECONDS = 2
"""


def add_to_the_app(project: Path, code: str) -> None:
    with (project / "app/main.py").open("a") as main:
        main.write(code)


@pytest.fixture(scope="module")
def serving(
    generate: Generate, migrated_once: Migrated, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """`serve`, with short limits and the routes above."""
    home = tmp_path_factory.mktemp("serving")
    folder = Path(shutil.copytree(migrated_once(generate(auth=True)), home / "project"))
    add_to_the_app(folder, LOGIN + SLOW_ROUTE + LARGE_ROUTE + SHORT_LIMITS)
    machine = Machine(home / "home", {"python3": base_python()})
    with Server(machine, [*SERVE, "--keep-alive", "5"], folder) as server:
        yield server


@pytest.fixture(scope="module")
def shared_server(
    project: Project, migrated_once: Migrated, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """For tests that change nothing, neither in the database nor in the server."""
    home = tmp_path_factory.mktemp("shared")
    folder = Path(shutil.copytree(migrated_once(project), home / "project"))
    machine = Machine(home / "home", {"python3": base_python()})
    with Server(machine, UVICORN, folder, ENVIRONMENT="development") as server:
        yield server


def test_it_answers_and_stops_on_request(server: Server) -> None:
    for path in ("/", "/docs", "/openapi.json", "/api/v1/", "/health/live", "/health/ready"):
        assert server.get(path).status == 200, path
    assert server.get("/nowhere").headers["content-type"] == "application/problem+json"

    # 143: uvicorn finished its requests and then ended itself with the signal (128 + SIGTERM).
    assert server.stop(signal.SIGTERM) in {0, -signal.SIGTERM, 143}
    assert "Traceback" not in server.output


def test_g6_without_settings_it_only_serves_this_machine(machine: Machine, migrated: Path) -> None:
    with Server(machine, UVICORN, migrated) as server:
        assert server.get("/api/v1/").status == 200
        assert server.get("/api/v1/", Host="api.example.com").status == 400
        assert server.get("/").status == 404
        assert server.get("/docs").status == 404


def test_x3_every_line_of_a_production_log_is_json(machine: Machine, migrated: Path) -> None:
    with Server(machine, SERVE, migrated, **PRODUCTION) as server:
        answer = server.get("/api/v1/%0aforged", Host="api.example.com")
        server.stop(signal.SIGTERM)

    lines = [json.loads(line) for line in server.output.splitlines()]
    request = next(line for line in lines if line["message"] == "GET /api/v1/%0Aforged")
    assert request["request_id"] == answer.headers["x-request-id"]
    assert request["status"] == 404
    assert any(line["message"] == "Application startup complete." for line in lines)


def test_g5_production_does_not_start_without_its_host_names(
    machine: Machine, migrated: Path
) -> None:
    process = machine.popen(*UVICORN, cwd=migrated, environment={"ENVIRONMENT": "production"})
    output, _ = process.communicate(timeout=30)

    assert process.returncode not in (0, None)
    assert "ALLOWED_HOSTS: list the host names" in output
    assert "Traceback" not in output


def test_x9_serve_hides_its_name_and_only_believes_listed_proxies(
    machine: Machine, migrated: Path
) -> None:
    claimed = {"Host": "api.example.com", "X-Forwarded-For": "203.0.113.5"}
    logged = []
    for trusted in ("", "127.0.0.1"):
        environment = {**PRODUCTION, "TRUSTED_PROXIES": trusted}
        with Server(machine, SERVE, migrated, **environment) as server:
            headers = server.get("/api/v1/", **claimed).headers
            server.stop(signal.SIGTERM)
        assert "server" not in headers
        lines = [json.loads(line) for line in server.output.splitlines()]
        (line,) = [line for line in lines if line["message"] == "GET /api/v1/"]
        logged.append(line["address"])

    assert logged == ["127.0.0.1", "203.0.113.5"]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ENVIRONMENT": "production"}, "ALLOWED_HOSTS: list the host names"),
        ({**PRODUCTION, "DATABASE_URL": "sqlite:///./missing.db"}, "missing.db"),
    ],
    ids=["settings", "database"],
)
def test_serve_ends_if_the_app_cannot_start(
    machine: Machine, migrated: Path, workers: str, environment: dict[str, str], said: str
) -> None:
    options = ["--workers", workers, "--port", str(free_port())]
    process = machine.popen(*SERVE, *options, cwd=migrated, environment=environment)
    output, _ = process.communicate(timeout=60)

    assert process.returncode not in (0, None)
    assert said in output


def test_no_response_waits_for_the_acknowledgement_of_its_headers(serving: Server) -> None:
    """TCP would wait 40 ms. Only a connection that stays open shows it."""
    connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=30)
    took = []
    for _ in range(30):
        started_at = time.perf_counter()
        connection.request("GET", "/health/live")
        connection.getresponse().read()
        took.append(time.perf_counter() - started_at)
    connection.close()

    # The fastest, since the machine may be busy.
    assert min(took[5:]) < 0.03


def test_two_workers_of_serve_answer(machine: Machine, migrated: Path) -> None:
    with Server(machine, [*SERVE, "--workers", "2"], migrated) as server:
        assert {server.get("/health/ready").status for _ in range(50)} == {200}
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(timeout=60) == 0
    assert [line for line in server.lines if not line.startswith("{")] == []


def test_it_recovers_when_the_database_comes_back(server: Server, migrated: Path) -> None:
    database = migrated / "app.db"
    aside = migrated / "aside"
    assert server.get("/health/ready").status == 200

    database.rename(aside)
    assert server.get("/health/ready").status == 503
    assert not database.exists()
    aside.rename(database)

    assert server.get("/health/ready").status == 200


def test_two_workers_serve_one_database(machine: Machine, migrated: Path) -> None:
    with Server(machine, [*UVICORN, "--workers", "2"], migrated) as server:
        assert {server.get("/health/ready").status for _ in range(50)} == {200}


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"HEAD /api/v1/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"TRACE /api/v1/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /api/v1/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET /%ff%fe%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"POST /api/v1/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n", 413),
    ],
)
def test_requests_that_no_http_library_would_send(
    shared_server: Server, request_bytes: bytes, status: int
) -> None:
    answer = shared_server.raw(request_bytes)

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"x-content-type-options: nosniff" in answer.lower()
    head, _, body = answer.partition(b"\r\n\r\n")
    if status == 200:
        assert body == b""
    else:
        assert b"application/problem+json" in head


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /api/v1/ HTTP/1.1\r\n\r\n",
        b"GET /api/v1/ HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /api/v1/ HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
    ids=["no host", "two hosts", "200 kB of a header", "TLS"],
)
def test_invalid_http_is_rejected_before_the_app(
    shared_server: Server, request_bytes: bytes
) -> None:
    assert shared_server.raw(request_bytes).startswith(b"HTTP/1.1 400 ")
    assert shared_server.get("/health/live").status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET /api/v1/ HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"],
    ids=["no host", "TLS"],
)
def test_x5_serve_answers_invalid_http_with_a_problem_and_the_security_headers(
    serving: Server, request_bytes: bytes
) -> None:
    head, _, body = serving.raw(request_bytes).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert b"x-content-type-options: nosniff" in head.lower()
    assert b"server:" not in head.lower()
    assert json.loads(body)["status"] == 400


def test_x3_a_pipelined_request_is_not_logged_under_the_user_before(serving: Server) -> None:
    request = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", serving.port), timeout=10) as connection:
        connection.sendall(request % b"as-user-7" + request % b"anonymous")
        answers = b""
        while received := connection.recv(65536):
            answers += received
    assert b'"/anonymous"' in answers

    lines = [json.loads(line) for line in serving.output.splitlines()]
    users = {line["message"]: line.get("user_id") for line in lines}
    assert users["GET /as-user-7"] == 7
    assert users["GET /anonymous"] is None


def test_i13_serve_closes_a_connection_that_sends_no_whole_request(serving: Server) -> None:
    """The limits are shortened: two seconds for headers, and five between two requests."""
    live = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for sent, seconds in (
        (b"", 2),
        (b"GET / HTTP/1.1\r\n", 2),
        (live, 5),
        (live + b"GET / HTT", 2),
    ):
        with socket.create_connection(("127.0.0.1", serving.port), timeout=10) as connection:
            connection.sendall(sent)
            started_at = time.monotonic()
            while connection.recv(65536):
                pass
        assert seconds - 1 < time.monotonic() - started_at < seconds + 2.5, sent


def read_until(end: bytes, connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(end) and (part := connection.recv(65536)):
        received += part
    return received


def seconds_until_closed(connection: socket.socket) -> float:
    started_at = time.monotonic()
    while connection.recv(65536):
        pass
    return time.monotonic() - started_at


POST = b"POST %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n"
EARLY = POST % (b"/nope", b"Content-Length: 10")
EARLY_CHUNKED = POST % (b"/nope", b"Transfer-Encoding: chunked")
SLOW_CHUNKED = POST % (b"/answers-slowly", b"Transfer-Encoding: chunked")
SLOW_AND_LAST = POST % (b"/answers-slowly", b"Connection: close")


@pytest.mark.parametrize(
    ("start", "rest", "seconds"),
    [
        (EARLY, [b"0123456789"], 5),
        (EARLY, [b"01234", b"56789"], 5),
        (EARLY_CHUNKED, [b"a\r\n0123456789\r\n", b"0\r\n\r\n"], 5),
        (EARLY, [], 2),
        (EARLY, [b"0123"], 2),
        (EARLY_CHUNKED, [b"a\r\n0123456789\r\n"], 2),
        (EARLY, [b"0123456789GET / HTT"], 2),
    ],
    ids=[
        "whole",
        "in parts",
        "in chunks",
        "nothing",
        "a part",
        "a chunk",
        "and a part of a request",
    ],
)
def test_i13_a_connection_outlives_a_body_that_arrives_after_its_response(
    serving: Server, start: bytes, rest: list[bytes], seconds: int
) -> None:
    """The limits are as above: the rest of the body has as long as headers."""
    with socket.create_connection(("127.0.0.1", serving.port), timeout=10) as connection:
        connection.sendall(start)
        assert read_until(b"}", connection).startswith(b"HTTP/1.1 404 ")
        for part in rest:
            connection.sendall(part)
            time.sleep(0.1)
        assert seconds - 1 < seconds_until_closed(connection) < seconds + 2.5


def test_a_body_with_two_lengths_is_the_last_of_its_connection(serving: Server) -> None:
    """A proxy may have read another end of it (RFC 9112, section 6.1)."""
    two = POST % (b"/nope", b"Content-Length: 5\r\nTransfer-Encoding: chunked")
    smuggled = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", serving.port), timeout=4) as connection:
        connection.sendall(two + b"0\r\n\r\n" + smuggled)
        while part := connection.recv(65536):
            received += part

    assert received.startswith(b"HTTP/1.1 404 ")
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends such a connection")
def test_i13_a_client_that_does_not_read_loses_its_connection(serving: Server) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", serving.port))
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(7)
        connection.settimeout(10)
        received = 0
        with suppress(ConnectionResetError):
            while part := connection.recv(65536):
                received += len(part)

    assert received < 10_000_000


def drip(connection: socket.socket) -> None:
    for _ in range(100):
        connection.sendall(b"x")
        time.sleep(0.1)


def test_i13_a_body_that_drips_after_its_response_ends(serving: Server) -> None:
    with socket.create_connection(("127.0.0.1", serving.port), timeout=10) as connection:
        connection.sendall(EARLY.replace(b"10", b"100"))
        started_at = time.monotonic()
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            drip(connection)
        assert 1 < time.monotonic() - started_at < 4.5


def test_a_request_after_a_late_body_has_the_whole_time_for_its_headers(serving: Server) -> None:
    with socket.create_connection(("127.0.0.1", serving.port), timeout=10) as connection:
        connection.sendall(EARLY)
        read_until(b"}", connection)
        connection.sendall(b"0")
        time.sleep(1.5)
        connection.sendall(b"123456789GET /health/live HTTP/1.1\r\n")
        time.sleep(1)
        connection.sendall(b"Host: localhost\r\n\r\n")

        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("start", "answer", "rest", "then"),
    [
        (EARLY_CHUNKED, b"}", b"zz\r\n", b""),
        (EARLY_CHUNKED, b"}", b"0\r\n\r\nbad\r\n\r\n", b"HTTP/1.1 400 "),
        (SLOW_CHUNKED, b"part\r\n", b"zz\r\n", b""),
        (SLOW_AND_LAST, b"part\r\n", b"more", b""),
    ],
    ids=["after a response", "the next request", "during a response", "after the last request"],
)
def test_invalid_http_ends_a_connection_without_a_traceback(
    serving: Server, start: bytes, answer: bytes, rest: bytes, then: bytes
) -> None:
    before = len(serving.output)
    with socket.create_connection(("127.0.0.1", serving.port), timeout=10) as connection:
        connection.sendall(start)
        read_until(answer, connection)
        connection.sendall(rest)
        received = read_until(b"the end of the connection", connection)
    # Its line in the log comes after theirs.
    serving.get("/the-end")
    deadline = time.monotonic() + 10
    while "GET /the-end" not in (logged := serving.output[before:]):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert received.startswith(then)
    assert (b"HTTP/1.1" in received) == bool(then)
    assert "Invalid HTTP request received" in logged
    assert "Traceback" not in logged
    assert '"ERROR"' not in logged


def test_a_service_under_a_path_of_its_proxy_names_that_path(
    machine: Machine, generate: Generate, migrated_once: Migrated, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(migrated_once(generate(auth=True)), tmp_path / "project"))
    command = [*SERVE, "--root-path", "/shelf"]
    with Server(machine, command, folder, ENVIRONMENT="development") as server:
        assert server.get("/docs").status == 200
        schema = server.get("/openapi.json").json()
        home = server.get("/api/v1/").json()

    assert home["docs"] == "/shelf/docs"
    assert schema["servers"] == [{"url": "/shelf"}]
    for scheme in schema["components"].get("securitySchemes", {}).values():
        assert scheme["flows"]["password"]["tokenUrl"] == "/shelf/api/v1/auth/login"
