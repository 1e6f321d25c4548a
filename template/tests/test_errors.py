"""Whatever goes wrong, and wherever, the answer is a problem (RFC 9457) with all the headers."""

import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import pytest
from fastapi import Body, FastAPI
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Insert, insert, text

from app.api.deps import DatabaseDep, SessionDep
from app.errors import Conflict
from app.main import create_app
from app.models.user import User
from tests.conftest import MakeSettings

SECRET = "correct horse battery staple"


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Probe(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None


def insert_user(number: int) -> Insert:
    name = f"user-{number}"
    return insert(User).values(id=number, username=name, email=name, password="")


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
        await session.execute(insert_user(1))

    @app.get("/rows")
    async def count_rows(session: SessionDep) -> int:
        return await session.scalar(text("SELECT count(*) FROM users")) or 0

    @app.get("/words")
    async def refuse_in_plain_text() -> PlainTextResponse:
        cookies = PlainTextResponse("my words", 400)
        cookies.set_cookie("a", "1")
        cookies.set_cookie("b", "2")
        return cookies

    @app.post("/slow")
    async def look_work_write(database: DatabaseDep, session: SessionDep) -> int:
        async with database.readers() as reader:
            seen = await reader.scalar(text("SELECT count(*) FROM users"))
        # Somebody else can write here: neither session holds a lock.
        async with database.writers.begin() as other:
            await other.execute(insert_user(2))
        await session.execute(insert_user(1))
        return seen or 0

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
def test_x5_x11_every_error_is_a_problem_with_the_security_headers(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "no_such_table" not in answer.text
    problem = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert {"type", "title", "detail", "instance"} < problem.keys()


def test_an_error_of_the_app_says_its_sentence(client: TestClient) -> None:
    assert client.get("/clashes").json()["detail"] == "Ada is taken."


def test_x1_a_crash_tells_the_log_and_not_the_visitor(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get("/fails")

    assert SECRET not in answer.text
    assert SECRET in caplog.text


def test_x3_t11_the_log_has_a_line_for_each_request(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.request")

    client.get("/api/v1/%0aforged", params={"token": SECRET})

    line = caplog.records[-1]
    assert line.getMessage() == "GET /api/v1/%0Aforged"
    assert line.__dict__["status"] == 404


def test_x8_another_host_is_refused(client: TestClient) -> None:
    answer = client.get("/api/v1/", headers={"Host": "evil.example"})

    assert answer.status_code == 400
    assert answer.json()["detail"] == "Invalid host header"


def test_a_refusal_in_plain_text_keeps_its_words_and_headers(client: TestClient) -> None:
    answer = client.get("/words")

    assert answer.json()["detail"] == "my words"
    assert len(answer.headers.get_list("set-cookie")) == 2


def test_slow_work_can_stay_outside_of_the_transaction(client: TestClient) -> None:
    assert client.post("/slow").json() == 0
    assert client.get("/rows").json() == 2


def test_what_is_taken_is_a_conflict(client: TestClient) -> None:
    assert client.post("/writes").status_code == 200
    assert client.post("/writes").status_code == 409


def test_x5_a_browser_is_told_to_stay_with_https(app: FastAPI) -> None:
    with TestClient(app, base_url="https://testserver") as client:
        assert "max-age=31536000" in client.get("/api/v1/").headers["strict-transport-security"]
    with TestClient(app) as client:
        assert "strict-transport-security" not in client.get("/api/v1/").headers


def test_a_long_path_makes_no_long_line_and_no_long_answer(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    answer = client.get("/" + "%ff" * 20_000)

    assert answer.status_code == 404
    assert len(answer.content) < 10_000
    (line,) = [record.getMessage() for record in caplog.records if record.name == "app.request"]
    assert len(line) < 10_000


@pytest.mark.parametrize("path", ["/bodies", "/writes", "/api/v1/", "/nowhere"])
def test_i3_a_body_over_one_mebibyte_is_refused(client: TestClient, path: str) -> None:
    answer = client.post(path, content=b"x" * (2**20 + 1))

    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    # Refused before the route, which reads no body, could write anything.
    assert client.get("/rows").json() == 0


def test_i3_a_body_over_one_mebibyte_is_refused_in_chunks_too(client: TestClient) -> None:
    chunks = (b"x" * 2**16 for _ in range(17))

    answer = client.post("/bodies", content=chunks, headers={"Content-Type": "text/plain"})

    assert answer.status_code == 413
    assert answer.json()["title"] == "Content Too Large"


def test_i11_a_wrong_method_names_the_right_ones(client: TestClient) -> None:
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
        b'{"number": 1, "pet": {"kind": "correct horse battery staple"}}',
    ],
    ids=lambda body: repr(body[:32]),
)
def test_x2_a_request_that_does_not_fit_is_told_where_and_never_what(
    client: TestClient, body: bytes
) -> None:
    answer = client.post("/numbers", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code in {400, 422}
    assert SECRET not in answer.text
    faults = answer.json().get("errors", [])
    assert all(fault.keys() == {"loc", "msg", "type"} for fault in faults)


def test_a_get_cannot_write(client: TestClient, database: Path) -> None:
    assert client.get("/writes").status_code == 500


def test_a_commit_that_fails_is_not_a_success(client: TestClient, database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            """
            CREATE TABLE parents (id INTEGER PRIMARY KEY);
            CREATE TABLE children (parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
            CREATE TRIGGER orphan AFTER INSERT ON users
            BEGIN INSERT INTO children VALUES (1); END;
            """
        )

    assert client.post("/writes").status_code == 409
    assert client.get("/rows").json() == 0


def test_a_database_that_is_gone_is_an_outage(client: TestClient, database: Path) -> None:
    database.unlink()

    answer = client.post("/writes")

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps an open file where it is")
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


def test_x6_a_page_of_another_origin_reads_nothing_unless_it_is_listed(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(cors_origins="https://www.example.com")
    app = create_app(settings)

    @app.get("/fails")
    async def fail() -> None:
        raise RuntimeError

    with TestClient(app) as client:
        failure = client.get("/fails", headers={"Origin": "https://www.example.com"})
        friend = client.get("/api/v1/", headers={"Origin": "https://www.example.com"})
        stranger = client.get(
            "/api/v1/", headers={"Origin": "https://www.example.com.evil.example"}
        )

    assert friend.headers["access-control-allow-origin"] == "https://www.example.com"
    assert "access-control-allow-origin" not in stranger.headers
    assert failure.status_code == 500
    assert failure.headers["access-control-allow-origin"] == "https://www.example.com"
