"""Request bodies: how large they may be, and what counts as JSON."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from app.core.routing import Router
from app.main import create_app
from tests.conftest import MakeSettings
from tests.core.routes import SECRET, add_database_routes

MIB = 2**20


def in_chunks(size: int) -> Iterator[bytes]:
    """A body without a Content-Length."""
    for _ in range(size // 2**16):
        yield b"x" * 2**16
    yield b"x" * (size % 2**16)


@pytest.mark.parametrize("path", ["/bodies", "/writes", "/api/v1/", "/nowhere"])
def test_i3_a_body_over_one_mebibyte_is_rejected_before_any_work(
    client: TestClient, path: str
) -> None:
    response = client.post(path, content=b"x" * (MIB + 1))

    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    # A route that reads no body must not write anything, either.
    assert client.get("/rows").json() == 0


def test_i3_a_body_over_one_mebibyte_is_rejected_in_chunks_too(client: TestClient) -> None:
    headers = {"Content-Type": "text/plain"}

    response = client.post("/bodies", content=in_chunks(MIB + 1), headers=headers)

    assert response.status_code == 413
    assert response.json()["title"] == "Content Too Large"


def test_i3_the_limit_is_a_setting(make_settings: MakeSettings) -> None:
    app = create_app(make_settings(max_body_bytes=2048))
    add_database_routes(app)

    with TestClient(app) as client:
        assert client.post("/writes", content=b"x" * 2049).status_code == 413
        assert client.post("/writes", content=b"x" * 2048).status_code == 200


@pytest.mark.parametrize("limited", ["router", "include", "outer include", "route"])
@pytest.mark.parametrize(("size", "status"), [(3 * MIB, 200), (4 * MIB + 1, 413)])
def test_i3_a_router_can_accept_larger_uploads_than_the_app(
    app: FastAPI, limited: str, size: int, status: int
) -> None:
    def limit(place: str) -> int | None:
        return 4 * MIB if limited == place else None

    router = Router(prefix="/uploads", max_body_size=limit("router"))

    @router.post("", max_body_size=limit("route"))
    async def upload(request: Request) -> int:
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
        return received

    outer = Router()
    outer.include_router(router, max_body_size=limit("include"))
    app.include_router(outer, max_body_size=limit("outer include"))
    with TestClient(app) as client:
        whole = client.post("/uploads", content=b"x" * size)
        chunked = client.post("/uploads", content=in_chunks(size))

    assert (whole.status_code, chunked.status_code) == (status, status)
    if status == 200:
        assert (whole.json(), chunked.json()) == (size, size)


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
        b'{"number": 1, "number": 1}',
        b"[" * 100_000,
        b'{"number": ' + b"9" * 5000 + b"}",
        b"\xff\xfe{",
        b"\xef\xbb\xbf{}",
        b'{"number": "\x00"}',
        b'{"number": 1, "pet": {"kind": "correct horse battery staple"}}',
    ],
    ids=lambda body: repr(body[:32]),
)
def test_x2_an_invalid_body_is_located_and_never_quoted(client: TestClient, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}

    response = client.post("/numbers", content=body, headers=headers)

    assert response.status_code in {400, 422}
    assert SECRET not in response.text
    for error in response.json().get("errors", []):
        assert error.keys() == {"loc", "msg", "type"}


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", ""])
def test_i5_another_content_type_is_a_415(client: TestClient, kind: str) -> None:
    response = client.post("/numbers", content=b"{}", headers={"Content-Type": kind})

    assert response.status_code == 415


@pytest.mark.parametrize("number", ["1e400", "-1e400", '[0, {"of": 1e999}]'])
def test_x2_a_number_that_is_too_large_for_a_float_is_not_read_as_infinity(
    app: FastAPI, number: str
) -> None:
    router = Router()

    @router.post("/measurements")
    async def repeat(data: dict[str, Any]) -> dict[str, Any]:
        return data

    app.include_router(router)
    with TestClient(app) as client:
        headers = {"Content-Type": "application/json"}
        large = client.post("/measurements", content=f'{{"n": {number}}}', headers=headers)
        largest = client.post("/measurements", content=b'{"n": 1.5e308}', headers=headers)

    assert large.status_code == 400
    assert largest.json() == {"n": 1.5e308}
