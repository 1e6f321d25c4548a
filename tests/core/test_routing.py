"""Which routes a request is compared with, and that none is missed."""

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Match, Route
from starlette.types import Scope

from app.core.routing import IdPath, Router, StrictRoute

OTHERS = 30


class CountedRoute(StrictRoute):
    count = 0

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        CountedRoute.count += 1
        return super().matches(scope)


async def answer() -> str:
    return "found"


async def answer_plainly(_: Request) -> PlainTextResponse:
    return PlainTextResponse("found")


def test_other_resources_do_not_slow_down_a_request(app: FastAPI) -> None:
    v1 = APIRouter(prefix="/api/v1")
    for name in [*(f"others{number}" for number in range(OTHERS)), "books"]:
        router = Router(prefix=f"/{name}", route_class=CountedRoute)
        router.get("")(answer)
        router.get("/{book_id:id}")(answer)
        v1.include_router(router)
    app.include_router(v1)

    with TestClient(app) as client:
        CountedRoute.count = 0
        assert client.get("/api/v1/books/1").status_code == 200

    assert 0 < CountedRoute.count < OTHERS


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/books", 200),
        ("/api/books/1", 200),
        ("/api/books/1/pages/2", 200),
        ("/api/books/added-later", 200),
        # Starlette's own methods do not add the prefix of a router.
        ("/api/plain", 200),
        ("/api/mounted/inside", 200),
        ("/api/others/1", 200),
        ("/api/book", 404),
        ("/api/books/x", 404),
        ("/api/magazines", 404),
    ],
)
def test_every_route_of_a_router_is_found(app: FastAPI, path: str, status: int) -> None:
    books, pages = Router(prefix="/books"), Router(prefix="/{book_id:id}/pages")

    @pages.get("/{page_id:id}")
    async def read_page(book_id: IdPath, page_id: IdPath) -> str:
        return f"page {page_id} of {book_id}"

    books.get("")(answer)
    books.get("/{book_id:id}")(answer)
    books.include_router(pages)
    others = Router(prefix="/others")
    others.get("/{other_id:id}")(answer)
    others.add_route("/plain", answer_plainly)
    others.mount("/mounted", Starlette(routes=[Route("/inside", answer_plainly)]))
    app.include_router(books, prefix="/api")
    app.include_router(others, prefix="/api")

    with TestClient(app) as client:
        assert client.get("/api/books").status_code == 200
        books.get("/added-later")(answer)
        assert client.get(path).status_code == status


def test_a_wrong_method_is_a_405_and_another_root_path_is_no_obstacle(app: FastAPI) -> None:
    books = Router(prefix="/books")
    books.get("/{book_id:id}")(answer)
    app.include_router(books)

    with TestClient(app, root_path="/behind/a/proxy") as client:
        assert client.get("/behind/a/proxy/books/1").status_code == 200
        assert client.delete("/behind/a/proxy/books/1").status_code == 405
        assert client.head("/behind/a/proxy/books/1").status_code == 200
