"""Each variant behind a real uvicorn: what its own tests, which call it in-process, can't see."""

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines import Machine
from tests.projects import Project
from tests.servers import Server

pytestmark = pytest.mark.slow

UVICORN = [sys.executable, "-m", "uvicorn", "app.main:app"]
PRODUCTION = {"ENVIRONMENT": "production", "ALLOWED_HOSTS": "api.example.com"}


@pytest.fixture
def migrated(project: Project, tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(project.path, folder)
    Project(folder, {}).succeed("alembic", "upgrade", "head")
    return folder


@pytest.fixture
def server(machine: Machine, migrated: Path) -> Iterator[Server]:
    with Server(machine, UVICORN, migrated, ENVIRONMENT="development") as server:
        yield server


def test_it_answers_and_stops_when_asked(server: Server) -> None:
    for path in ("/", "/docs", "/openapi.json", "/api/v1/", "/health/live", "/health/ready"):
        assert server.get(path).status == 200, path
    assert server.get("/nowhere").headers["content-type"] == "application/problem+json"

    # 143: uvicorn finished what was under way, then died of the signal as asked (128 + SIGTERM).
    assert server.stop(signal.SIGTERM) in {0, -signal.SIGTERM, 143}
    assert "Traceback" not in server.output


def test_it_serves_nobody_but_this_machine_until_it_is_told_to(
    machine: Machine, migrated: Path
) -> None:
    with Server(machine, UVICORN, migrated) as server:
        assert server.get("/api/v1/").status == 200
        assert server.get("/api/v1/", Host="api.example.com").status == 400
        assert server.get("/").status == 404
        assert server.get("/docs").status == 404


def test_every_line_of_a_production_log_is_json(machine: Machine, migrated: Path) -> None:
    command = [*UVICORN, "--no-server-header"]
    with Server(machine, command, migrated, **PRODUCTION) as server:
        answer = server.get("/api/v1/%0aforged", Host="api.example.com")
        server.stop(signal.SIGTERM)

    lines = [json.loads(line) for line in server.output.splitlines()]
    request = next(line for line in lines if line["message"] == "GET /api/v1/%0Aforged")
    assert request["request_id"] == answer.headers["x-request-id"]
    assert request["status"] == 404
    assert "server" not in answer.headers
    assert any(line["message"] == "Application startup complete." for line in lines)


def test_production_refuses_to_start_without_its_hosts(machine: Machine, migrated: Path) -> None:
    process = machine.popen(*UVICORN, cwd=migrated, environment={"ENVIRONMENT": "production"})
    output, _ = process.communicate(timeout=30)

    assert process.returncode not in (0, None)
    assert "ALLOWED_HOSTS: name the hosts" in output
    assert "Traceback" not in output


def test_it_comes_back_when_the_database_does(server: Server, migrated: Path) -> None:
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
def test_what_no_http_library_would_send(server: Server, request_bytes: bytes, status: int) -> None:
    answer = server.raw(request_bytes)

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
def test_what_is_no_http_is_refused_before_the_app(server: Server, request_bytes: bytes) -> None:
    assert server.raw(request_bytes).startswith(b"HTTP/1.1 400 ")
    assert server.get("/health/live").status == 200
