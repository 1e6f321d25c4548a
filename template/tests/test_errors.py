"""Whatever goes wrong, and wherever, the answer is a problem (RFC 9457) with all the headers."""

import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Body, FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel
from sqlalchemy import text

from app.api.deps import SessionDep
from app.errors import Conflict
from app.main import create_app
from tests.conftest import MakeSettings

SECRET = "correct horse battery staple"


class Probe(BaseModel):
    number: int


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """The app with routes that go wrong."""

    @app.get("/fails")
    async def fail() -> None:
        raise RuntimeError(SECRET)

    @app.get("/clashes")
    async def clash() -> None:
        raise Conflict("Ada is taken.")

    @app.post("/numbers")
    async def take_number(probe: Probe) -> int:
        return probe.number

    @app.post("/bodies")
    async def take_body(body: Annotated[bytes, Body()]) -> int:
        return len(body)

    @app.delete("/numbers")
    async def drop_numbers() -> None: ...

    @app.get("/writes")
    async def write_in_get(session: SessionDep) -> None:
        await session.execute(text("DELETE FROM users"))

    @app.post("/writes")
    async def write(session: SessionDep) -> None:
        await session.execute(text("INSERT INTO permissions VALUES (1, 'a', '')"))

    @app.get("/mistakes")
    async def query_wrongly(session: SessionDep) -> None:
        await session.execute(text("SELECT * FROM no_such_table"))

    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/nowhere/%0d%0a/ü", 404),
        ("POST", "/api/v1/", 405),
        ("GET", "/clashes", 409),
        ("POST", "/numbers", 422),
        ("GET", "/fails", 500),
        ("GET", "/mistakes", 500),
    ],
)
def test_every_error_is_a_problem(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    problem = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert {"type", "title", "detail", "instance"} < problem.keys()


def test_an_error_of_the_app_says_its_sentence(client: TestClient) -> None:
    assert client.get("/clashes").json()["detail"] == "Ada is taken."


def test_a_crash_tells_the_log_and_not_the_visitor(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get("/fails")

    assert SECRET not in answer.text
    assert SECRET in caplog.text


def test_the_log_has_a_line_for_each_request_with_its_id(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.request")

    client.get("/api/v1/%0aforged", params={"token": SECRET})

    line = caplog.records[-1]
    assert line.getMessage() == "GET /api/v1/%0Aforged"
    assert line.__dict__["status"] == 404


def test_another_host_is_refused(client: TestClient) -> None:
    answer = client.get("/api/v1/", headers={"Host": "evil.example"})

    assert answer.status_code == 400
    assert answer.json()["title"] == "Bad Request"


@pytest.mark.parametrize("path", ["/bodies", "/api/v1/", "/nowhere"])
def test_a_body_over_one_mebibyte_is_refused(client: TestClient, path: str) -> None:
    answer = client.request("POST", path, content=b"x" * (2**20 + 1))

    assert answer.status_code in {404, 405, 413}
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_over_one_mebibyte_is_refused_in_chunks_too(client: TestClient) -> None:
    chunks = (b"x" * 2**16 for _ in range(17))

    answer = client.post("/bodies", content=chunks, headers={"Content-Type": "text/plain"})

    assert answer.status_code == 413
    assert answer.json()["title"] == "Content Too Large"


def test_a_wrong_method_names_the_right_ones(client: TestClient) -> None:
    assert client.put("/numbers").headers["allow"] == "DELETE, POST"
    assert client.put("/api/v1/").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"NaN",
        b'{"number": NaN}',
        b'{"number": 1e999}',
        b'{"number": "correct horse battery staple"}',
        b'{"number": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"correct horse battery staple": 1}',
        b"[" * 100_000,
        b'{"number": ' + b"9" * 5000 + b"}",
        b"\xff\xfe{",
        b"\xef\xbb\xbf{}",
        b'{"number": "\x00"}',
    ],
    ids=lambda body: repr(body[:32]),
)
def test_a_request_that_does_not_fit_is_told_where_and_never_what(
    client: TestClient, body: bytes
) -> None:
    answer = client.post("/numbers", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code in {400, 422}
    assert SECRET not in answer.text
    faults = answer.json().get("errors", [])
    assert all(fault.keys() == {"loc", "msg", "type"} for fault in faults)


def test_a_get_cannot_write(client: TestClient, database: Path) -> None:
    assert client.get("/writes").status_code >= 500


def test_a_commit_that_fails_is_not_a_success(client: TestClient, database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            """
            CREATE TABLE parents (id INTEGER PRIMARY KEY);
            CREATE TABLE children (parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
            CREATE TRIGGER orphan AFTER INSERT ON permissions
            BEGIN INSERT INTO children VALUES (1); END;
            """
        )

    assert client.post("/writes").status_code == 500


def test_a_database_that_is_gone_is_an_outage(client: TestClient, database: Path) -> None:
    database.unlink()

    answer = client.post("/writes")

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"


def test_a_database_that_comes_back_is_used_again_and_another_one_is_not(
    client: TestClient, database: Path
) -> None:
    aside = database.with_name("aside.db")
    another = Path(shutil.copy(database, database.with_name("another.db")))
    assert client.post("/writes").status_code == 200

    database.rename(aside)
    assert client.post("/writes").status_code == 503
    assert client.get("/health/ready").status_code == 503
    aside.rename(database)
    assert client.get("/health/ready").status_code == 200

    another.replace(database)
    assert client.post("/writes").status_code == 503
    assert client.get("/health/ready").status_code == 503


def test_a_page_of_another_origin_reads_nothing_unless_it_is_listed(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(cors_origins="https://www.example.com")
    with TestClient(create_app(settings)) as client:
        friend = client.get("/api/v1/", headers={"Origin": "https://www.example.com"})
        stranger = client.get(
            "/api/v1/", headers={"Origin": "https://www.example.com.evil.example"}
        )

    assert friend.headers["access-control-allow-origin"] == "https://www.example.com"
    assert "access-control-allow-origin" not in stranger.headers
