"""The pages for developers, and what they may load and run."""

import base64
import hashlib
import re
from html import escape
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import app as project
from app.main import create_app
from tests.conftest import MakeSettings


def test_the_welcome_page_shows_the_state_of_the_database(client: TestClient) -> None:
    page = client.get("/")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert f"{escape(project.TITLE)} is running" in page.text


def test_each_link_of_the_welcome_page_works(client: TestClient) -> None:
    links = re.findall(r'href="([\w./]+)"', client.get("/").text)

    assert "docs" in links
    assert [client.get(f"/{link}").status_code for link in links] == [200] * len(links)


def test_the_welcome_page_says_when_the_database_cannot_be_read(
    client: TestClient, database: Path
) -> None:
    database.unlink()

    page = client.get("/")

    assert page.status_code == 200
    assert "cannot read its database" in page.text
    assert f"{database.name} does not exist" in page.text


@pytest.mark.parametrize("environment", ["production", None])
def test_x7_pages_for_developers_only_exist_in_development(
    make_settings: MakeSettings, environment: str | None
) -> None:
    with TestClient(create_app(make_settings(environment=environment))) as client:
        for path in ("/", "/docs", "/redoc", "/openapi.json"):
            assert client.get(path).status_code == 404, path


def test_x7_the_documentation_can_be_turned_on_in_production(make_settings: MakeSettings) -> None:
    with TestClient(create_app(make_settings(environment="production", docs=True))) as client:
        assert client.get("/docs").status_code == 200
        assert client.get("/api/v1/").json()["docs"] == "/docs"


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize("element", ["style", "script"])
def test_a_page_may_only_run_its_own_inline_code(
    client: TestClient, path: str, element: str
) -> None:
    page = client.get(path)

    inline = page.text.split(f"<{element}>")[1].split(f"</{element}>")[0]
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.headers["content-security-policy"]
    assert page.text.count(f"<{element}>") == 1
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_loads_nothing_from_another_server(client: TestClient, path: str) -> None:
    page = client.get(path)

    assert "//" not in page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert not [url for url in loaded if "//" in url and not url.startswith("data:")]


@pytest.mark.parametrize("name", ["swagger-ui.css", "swagger-ui-bundle.js"])
def test_the_files_of_the_documentation_come_from_the_app(client: TestClient, name: str) -> None:
    file = client.get(f"/docs/{name}")

    assert file.status_code == 200
    assert file.headers["cache-control"] == "private, max-age=3600"


def test_the_app_hands_out_no_other_file(client: TestClient) -> None:
    for name in ("__init__.py", "favicon-32x32.png", "..%2F__init__.py", "%2Fetc%2Fpasswd"):
        assert client.get(f"/docs/{name}").status_code in {404, 422}, name


def test_the_schema_names_the_path_that_a_proxy_removes(app: FastAPI) -> None:
    with TestClient(app, root_path="/shelf") as client:
        assert client.get("/shelf/api/v1/").json()["docs"] == "/shelf/docs"
        assert client.get("/shelf/docs").status_code == 200
        schema = client.get("/shelf/openapi.json").json()

    assert schema["servers"] == [{"url": "/shelf"}]
    for scheme in schema["components"].get("securitySchemes", {}).values():
        assert scheme["flows"]["password"]["tokenUrl"] == "/shelf/api/v1/auth/login"
    with TestClient(app) as client:
        assert "servers" not in client.get("/openapi.json").json()
