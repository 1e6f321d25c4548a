"""Mounted applications: they share the database, the error responses and the request rules."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import APIRouter, Body, FastAPI, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles
from fastapi.testclient import TestClient
from sqlalchemy import text
from starlette.routing import Mount, Route

from app.api.deps import SessionDep, SettingsDep
from app.errors import Conflict, NotFound
from tests.core.routes import insert_user

PROBLEM_JSON = "application/problem+json"


def make_sub_app() -> FastAPI:
    sub = FastAPI()

    @sub.get("/rows")
    async def count_rows(session: SessionDep, settings: SettingsDep) -> int:
        assert settings.in_development
        return await session.scalar(text("SELECT count(*) FROM users")) or 0

    @sub.post("/rows")
    async def add_row(session: SessionDep) -> None:
        await session.execute(insert_user(1))

    @sub.get("/missing")
    async def fail() -> None:
        raise NotFound("No such shelf.")

    @sub.get("/clash")
    async def clash(session: SessionDep) -> None:
        raise Conflict

    @sub.get("/gone")
    async def gone() -> None:
        raise HTTPException(410)

    @sub.post("/numbers")
    async def read_number(number: Annotated[int, Body()]) -> int:
        return number

    return sub


@pytest.fixture(params=["mount", "mount in a mount", "mount in a router"])
def sub(request: pytest.FixtureRequest, app: FastAPI) -> Iterator[TestClient]:
    sub = make_sub_app()
    if request.param == "mount":
        app.mount("/sub", sub)
    elif request.param == "mount in a mount":
        outer = FastAPI()
        outer.mount("/inner", sub)
        app.mount("/sub", outer)
    else:
        router = APIRouter()
        router.mount("/inner", sub)
        app.include_router(router, prefix="/sub")
    prefix = "/sub" if request.param == "mount" else "/sub/inner"
    with TestClient(app, base_url=f"http://testserver{prefix}") as client:
        yield client


def test_a_mounted_app_uses_the_database_and_the_settings(sub: TestClient) -> None:
    assert sub.get("rows").json() == 0
    assert sub.post("rows").status_code == 200
    assert sub.get("rows").json() == 1
    assert sub.post("rows").status_code == 409


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "missing", 404),
        ("GET", "nowhere", 404),
        ("GET", "clash", 409),
        ("GET", "gone", 410),
        ("POST", "numbers", 422),
        ("PUT", "rows", 405),
    ],
)
def test_an_error_of_a_mounted_app_is_a_problem(
    sub: TestClient, method: str, path: str, status: int
) -> None:
    response = sub.request(method, path)

    assert response.status_code == status
    assert response.headers["content-type"] == PROBLEM_JSON
    assert response.json()["status"] == status
    if status == 405:
        assert response.headers["allow"] == "GET, HEAD, POST"


def test_a_wrong_method_below_mounted_routes_is_answered_with_the_allowed_ones(
    app: FastAPI,
) -> None:
    routes = [Route("/rows", PlainTextResponse("one"), methods=[name]) for name in ("GET", "POST")]
    app.router.routes.append(Mount("/sub", routes=routes))

    with TestClient(app) as client:
        assert client.put("/sub/rows").headers["allow"] == "GET, HEAD, POST"


def test_a_mounted_app_answers_head_like_get(sub: TestClient) -> None:
    assert sub.head("rows").status_code == 200


def test_a_mounted_app_keeps_its_own_handlers_and_state(app: FastAPI) -> None:
    sub = make_sub_app()
    sub.state.settings = "mine"

    @sub.exception_handler(NotFound)
    async def answer(_: Request, error: Exception) -> Response:
        return Response(status_code=418)

    app.mount("/sub", sub)
    with TestClient(app) as client:
        assert client.get("/sub/missing").status_code == 418
        assert client.get("/sub/gone").status_code == 410
    assert sub.state.settings == "mine"


def test_a_file_range_that_cannot_be_sent_names_the_size(app: FastAPI, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    app.mount("/files", StaticFiles(directory=tmp_path))

    with TestClient(app) as client:
        response = client.get("/files/a.txt", headers={"Range": "bytes=900-"})

    assert response.status_code == 416
    assert response.headers["content-type"] == PROBLEM_JSON
    assert response.headers["content-range"] == "bytes */5"
    assert int(response.headers["content-length"]) == len(response.content)


@pytest.mark.parametrize("how", ["mount", "frontend", "route"])
def test_a_page_at_the_root_is_not_hidden_by_the_welcome_page(
    app: FastAPI, tmp_path: Path, how: str
) -> None:
    (tmp_path / "index.html").write_text("my page")
    if how == "mount":
        app.mount("/", StaticFiles(directory=tmp_path, html=True))
    elif how == "frontend":
        app.frontend("/", directory=tmp_path)
    else:

        @app.get("/")
        async def read() -> PlainTextResponse:
            return PlainTextResponse("my page")

    with TestClient(app) as client:
        assert client.get("/").text == "my page"
        assert client.get("/docs").status_code == 200
        assert client.get("/api/v1/").status_code == 200
