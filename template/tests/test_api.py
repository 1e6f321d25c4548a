import base64
import hashlib
import logging
import re
from html import escape
from pathlib import Path

import pytest
from alembic import command
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

import app as project
from app import logs
from app.main import create_app
from tests.conftest import MakeSettings, alembic_config


def test_home_says_what_this_is(client: TestClient) -> None:
    answer = client.get("/api/v1/")

    assert answer.json() == {"name": project.TITLE, "version": project.VERSION, "docs": "/docs"}


def test_a_developer_is_welcomed_with_the_state_of_the_database(client: TestClient) -> None:
    answer = client.get("/")

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert escape(project.TITLE) in answer.text
    assert "up to date" in answer.text


def test_the_welcome_page_says_so_when_there_is_no_database(
    client: TestClient, database: Path
) -> None:
    database.unlink()

    answer = client.get("/")

    assert answer.status_code == 200
    assert "the database does not answer" in answer.text


@pytest.mark.parametrize("environment", ["production", None])
@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/openapi.json"])
def test_x7_pages_for_developers_are_there_in_development_only(
    make_settings: MakeSettings, environment: str | None, path: str
) -> None:
    with TestClient(create_app(make_settings(environment=environment))) as client:
        assert client.get(path).status_code == 404


def test_docs_can_be_opened_in_production(make_settings: MakeSettings) -> None:
    with TestClient(create_app(make_settings(environment="production", docs=True))) as client:
        assert client.get("/docs").status_code == 200
        assert client.get("/api/v1/").json()["docs"] == "/docs"


def test_x10_live_answers_without_a_database(client: TestClient, database: Path) -> None:
    database.unlink()

    assert client.get("/health/live").json() == {"status": "ok"}


def test_x10_ready_when_the_database_is_at_the_head_revision(client: TestClient) -> None:
    assert client.get("/health/ready").json() == {"status": "ok"}


def test_not_ready_without_a_database_and_none_is_made(client: TestClient, database: Path) -> None:
    database.unlink()

    assert client.get("/health/ready").status_code == 503
    assert not database.exists()


def test_not_ready_while_migrations_are_missing(client: TestClient, database_url: str) -> None:
    command.downgrade(alembic_config(database_url), "base")

    answer = client.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json()["detail"] == "The database is not at the revision of this release."


@pytest.mark.parametrize(("path", "element"), [("/", "style"), ("/docs", "script")])
def test_a_page_may_run_its_own_inline_code_and_no_other(
    client: TestClient, path: str, element: str
) -> None:
    page = client.get(path)

    inline = page.text.split(f"<{element}>")[1].split(f"</{element}>")[0]
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.headers["content-security-policy"]
    assert page.text.count(f"<{element}>") == 1
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_i11_head_is_get_without_the_body(client: TestClient) -> None:
    head = client.head("/api/v1/")

    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == client.get("/api/v1/").headers["content-length"]


@pytest.mark.parametrize(
    "claimed", ["203.0.113.5", "203.0.113.5:50000", "127.0.0.1", "198.51.100.7"]
)
def test_x9_a_visitor_is_logged_under_the_address_they_come_from(
    app: FastAPI, caplog: pytest.LogCaptureFixture, claimed: str
) -> None:
    caplog.set_level(logging.INFO)
    seen: list[str | None] = []

    def note(_: logging.LogRecord) -> bool:
        seen.append(logs.address.get())
        return True

    caplog.handler.addFilter(note)
    with TestClient(app, client=("203.0.113.5", 50000)) as client:
        client.get("/health/live", headers={"X-Forwarded-For": claimed})

    assert set(seen) - {None} == {"203.0.113.5"}


@pytest.mark.parametrize("claimed", ["203.0.113.5, 127.0.0.1", "203.0.113.5, 198.51.100.7"])
def test_x9_what_uvicorn_was_made_to_believe_is_taken_back(app: FastAPI, claimed: str) -> None:
    """It gives a claimed address the port 0, which no connection has."""
    seen: list[str | None] = []

    @app.get("/peer")
    async def note(request: Request) -> None:
        seen.append(request.client.host if request.client else None)

    with TestClient(app, client=("203.0.113.5", 0)) as client:
        client.get("/peer", headers={"X-Forwarded-For": claimed})

    assert seen == ["127.0.0.1"]


@pytest.mark.parametrize("proxy", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_x9_a_trusted_proxy_is_believed_on_a_socket_for_both_kinds_of_address(
    make_settings: MakeSettings, proxy: str
) -> None:
    """Which calls an IPv4 address by its IPv6 name (RFC 4291, 2.5.5.2)."""
    app = create_app(make_settings(trusted_proxies="127.0.0.1"))
    seen: list[str | None] = []

    @app.get("/peer")
    async def note(request: Request) -> None:
        seen.append(request.client.host if request.client else None)

    with TestClient(app, client=(proxy, 50000)) as client:
        client.get("/peer", headers={"X-Forwarded-For": "203.0.113.5"})

    assert seen == ["203.0.113.5"]


def test_the_documentation_runs_only_the_code_that_was_looked_at(client: TestClient) -> None:
    page = client.get("/docs").text

    assert page.count("https://cdn.jsdelivr.net/") == 2
    assert len(re.findall(r'"https://[^"]+" integrity="sha384-[^"]{64}" crossorigin=', page)) == 2


def test_openapi_describes_every_error_as_a_problem(app: FastAPI) -> None:
    operations = [
        operation for path in app.openapi()["paths"].values() for operation in path.values()
    ]

    assert operations
    for operation in operations:
        errors = {s: r for s, r in operation["responses"].items() if not s.startswith("2")}
        assert "default" in errors
        for response in errors.values():
            assert response["content"].keys() == {"application/problem+json"}
    assert "HTTPValidationError" not in app.openapi()["components"]["schemas"]
