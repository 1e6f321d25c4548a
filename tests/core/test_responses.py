"""Every response has the security headers, and every error is a problem (RFC 9457)."""

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, HTTPException, Query, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.api.deps import SessionDep
from app.core.errors import AppError
from app.core.openapi import error_responses
from app.core.routing import Router
from app.core.types import ShortText
from app.main import create_app
from tests.conftest import MakeSettings
from tests.core.routes import SECRET


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
    response = client.request(method, path)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "no_such_table" not in response.text
    problem = response.json()
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert {"type", "title", "detail", "instance"} < problem.keys()


def test_a_text_of_the_wrong_length_is_told_in_characters(app: FastAPI, client: TestClient) -> None:
    @app.get("/length")
    async def read(text: Annotated[ShortText, Query(min_length=2, max_length=3)]) -> None: ...

    said = [
        client.get("/length", params={"text": text}).json()["errors"][0]["msg"]
        for text in ("a", "abcd")
    ]

    assert said == ["Use at least 2 character(s).", "Use at most 3 characters."]


def test_an_error_of_the_app_has_its_own_detail(client: TestClient) -> None:
    assert client.get("/clashes").json()["detail"] == "Ada is taken."


def test_x1_the_cause_of_a_500_is_in_the_log_and_not_in_the_response(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.get("/fails")

    assert SECRET not in response.text
    assert SECRET in caplog.text


def test_x3_t11_the_log_has_one_line_per_request_without_its_query(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.request")

    client.get("/api/v1/%0aforged", params={"token": SECRET})

    line = caplog.records[-1]
    assert line.getMessage() == "GET /api/v1/%0Aforged"
    assert vars(line)["status"] == 404


def test_a_long_path_is_cut_in_the_log_and_in_the_response(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    response = client.get("/" + "%ff" * 20_000)

    assert response.status_code == 404
    assert len(response.content) < 10_000
    (line,) = [record.getMessage() for record in caplog.records if record.name == "app.request"]
    assert len(line) < 10_000


def test_x8_another_host_is_rejected(client: TestClient) -> None:
    response = client.get("/api/v1/", headers={"Host": "evil.example"})

    assert response.status_code == 400
    assert response.json()["detail"] == "Invalid host header"


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_a_load_balancer_can_ask_for_the_health_by_address(app: FastAPI, path: str) -> None:
    with TestClient(app) as client:
        assert client.get(path, headers={"Host": "10.0.0.5:8001"}).status_code == 200
        assert client.get(f"{path}/x", headers={"Host": "10.0.0.5"}).status_code == 400
    with TestClient(app, root_path="/shelf") as behind_a_path:
        assert behind_a_path.get(path, headers={"Host": "10.0.0.5"}).status_code == 200


def test_an_error_in_plain_text_becomes_a_problem_and_keeps_its_headers(
    client: TestClient,
) -> None:
    response = client.get("/plain")

    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "my words"
    assert len(response.headers.get_list("set-cookie")) == 2


def test_an_error_after_the_response_has_begun_reaches_the_server(app: FastAPI) -> None:
    """It closes the connection, so that the client does not take the part for the whole."""

    async def write() -> AsyncIterator[str]:
        yield "words"
        raise RuntimeError("broken")

    @app.get("/breaks")
    async def break_off() -> StreamingResponse:
        return StreamingResponse(write())

    with TestClient(app) as client, pytest.raises(RuntimeError, match="broken"):
        client.get("/breaks")


def test_x5_browsers_are_told_to_stay_with_https(app: FastAPI) -> None:
    with TestClient(app, base_url="https://testserver") as client:
        assert "max-age=31536000" in client.get("/api/v1/").headers["strict-transport-security"]
    with TestClient(app) as client:
        assert "strict-transport-security" not in client.get("/api/v1/").headers


def test_i11_a_wrong_method_is_answered_with_the_allowed_ones(client: TestClient) -> None:
    assert client.put("/numbers").headers["allow"] == "DELETE, POST"
    assert client.put("/api/v1/").headers["allow"] == "GET, HEAD"


def test_i11_head_is_get_without_the_body(client: TestClient) -> None:
    head = client.head("/api/v1/")

    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == client.get("/api/v1/").headers["content-length"]


def test_i11_a_route_for_head_is_called_before_one_for_get(
    app: FastAPI, client: TestClient
) -> None:
    router = Router(prefix="/things")

    @router.get("/{name}")
    async def read(name: str) -> str:
        return name

    @router.head("/{name}")
    async def look(name: str, session: SessionDep) -> Response:
        rows = await session.scalar(text("SELECT count(*) FROM users"))
        return Response(headers={"X-Rows": str(rows)})

    app.include_router(router)

    assert client.head("/things/a").headers["x-rows"] == "0"
    assert "x-rows" not in client.get("/things/a").headers
    assert client.put("/things/a").headers["allow"] == "GET, HEAD"


def test_i11_a_head_request_takes_no_write_lock(
    app: FastAPI, client: TestClient, database: Path
) -> None:
    @app.head("/writes-on-head")
    async def write(session: SessionDep) -> None:
        await session.execute(text("DELETE FROM users"))

    @app.options("/writes-on-head")
    async def write_too(session: SessionDep) -> None:
        await session.execute(text("DELETE FROM users"))

    assert client.head("/writes-on-head").status_code == 500
    assert client.options("/writes-on-head").status_code == 500


@pytest.mark.parametrize("status", [418, 499, 599])
def test_an_error_with_an_unusual_status_is_a_problem(
    app: FastAPI, client: TestClient, status: int
) -> None:
    @app.get("/unusual")
    async def fail() -> None:
        raise HTTPException(status)

    @app.get("/plain-unusual")
    async def fail_in_plain_text() -> PlainTextResponse:
        return PlainTextResponse("my words", status)

    response = client.get("/unusual")
    assert response.status_code == status
    assert response.json()["title"]
    assert client.get("/plain-unusual").status_code == status


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none(app: FastAPI, client: TestClient, status: int) -> None:
    @app.get("/empty")
    async def fail() -> None:
        raise HTTPException(status, headers={"ETag": '"1"'})

    response = client.get("/empty")

    assert response.status_code == status
    assert response.content == b""
    assert "content-type" not in response.headers
    assert response.headers["etag"] == '"1"'


def test_an_error_with_a_structured_detail_is_a_problem(app: FastAPI, client: TestClient) -> None:
    @app.get("/structured")
    async def fail() -> None:
        raise HTTPException(400, {"until": datetime(2026, 1, 1, tzinfo=UTC)})

    assert client.get("/structured").json()["detail"] == {"until": "2026-01-01 00:00:00+00:00"}


def test_x6_only_pages_of_a_listed_origin_can_read_responses(make_settings: MakeSettings) -> None:
    app = create_app(make_settings(cors_origins="https://www.example.com"))

    @app.get("/fails")
    async def fail() -> None:
        raise RuntimeError

    with TestClient(app) as client:
        failure = client.get("/fails", headers={"Origin": "https://www.example.com"})
        listed = client.get("/api/v1/", headers={"Origin": "https://www.example.com"})
        other = client.get("/api/v1/", headers={"Origin": "https://www.example.com.evil.example"})

    assert listed.headers["access-control-allow-origin"] == "https://www.example.com"
    readable = listed.headers["access-control-expose-headers"]
    assert readable == "Location, Retry-After, X-Request-ID"
    assert "access-control-allow-origin" not in other.headers
    assert failure.status_code == 500
    assert failure.headers["access-control-allow-origin"] == "https://www.example.com"


@pytest.mark.parametrize(
    ("headers", "allowed", "status"),
    [
        ("", "authorization, content-type", 200),
        ("", "traceparent", 400),
        ("traceparent, Idempotency-Key", "traceparent, idempotency-key, content-type", 200),
        ("traceparent", "x-requested-with", 400),
    ],
)
def test_x6_pages_of_a_listed_origin_can_send_the_headers_of_the_settings(
    make_settings: MakeSettings, headers: str, allowed: str, status: int
) -> None:
    settings = make_settings(cors_origins="https://www.example.com", cors_headers=headers)
    asked = {
        "Origin": "https://www.example.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": allowed,
    }

    with TestClient(create_app(settings)) as client:
        assert client.options("/api/v1/", headers=asked).status_code == status


class Teapot(AppError):
    status_code = 418  # type: ignore[assignment]
    detail = "Short and stout."


def test_openapi_describes_every_error_as_a_problem(app: FastAPI) -> None:
    router = Router()

    @router.put("/things/{name}", responses=error_responses(Teapot))
    async def replace(name: str, body: dict[str, int]) -> None: ...

    app.include_router(router)
    schema = app.openapi()

    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    assert operations
    for operation in operations:
        errors = {s: r for s, r in operation["responses"].items() if not s.startswith("2")}
        assert "default" in errors
        assert "503" in errors
        for response in errors.values():
            assert response["content"].keys() == {"application/problem+json"}
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    documented = schema["paths"]["/things/{name}"]["put"]["responses"]
    assert documented.keys() >= {"400", "404", "409", "413", "415", "418", "422"}
    assert documented["418"]["description"] == "Short and stout."


def test_openapi_documents_a_conflict_where_a_route_reads_json_or_deletes(app: FastAPI) -> None:
    @app.post("/json")
    async def read_json(body: dict[str, int]) -> None: ...

    async def read_form() -> None: ...

    form: dict[str, Any] = {"requestBody": {"content": {"application/x-www-form-urlencoded": {}}}}
    app.post("/form", openapi_extra=form)(read_form)
    app.delete("/rows/{row}")(read_form)
    app.delete("/all")(read_form)
    paths = app.openapi()["paths"]

    assert "409" in paths["/json"]["post"]["responses"]
    assert "409" in paths["/rows/{row}"]["delete"]["responses"]
    assert "409" not in paths["/all"]["delete"]["responses"]
    assert "413" in paths["/form"]["post"]["responses"]
    assert "409" not in paths["/form"]["post"]["responses"]
