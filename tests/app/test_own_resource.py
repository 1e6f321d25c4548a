"""What the project's README says of adding a model, an endpoint, a permission and a test, in its order."""

import shutil
from pathlib import Path

import pytest

from tests.projects import Generate, Project

pytestmark = pytest.mark.slow

MODEL = """
from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base


class Book(Base):
    __tablename__ = "books"

    title: Mapped[str] = mapped_column(String(200))
"""
SCHEMA = """
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class BookCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Annotated[str, Field(max_length=200)]


class BookRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    title: str
"""
ROUTER = """
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter
from sqlalchemy import select

from app.api.auth import CurrentUser, require
from app.api.deps import SessionDep
from app.api.strict_json import StrictRoute
from app.models.book import Book
from app.schemas.book import BookCreate, BookRead
from app.services.identity import Identity

router = APIRouter(prefix="/books", tags=["books"], route_class=StrictRoute)


@router.get("", response_model=list[BookRead], dependencies=[require("books:read")])
async def list_books(session: SessionDep) -> Sequence[Book]:
    return (await session.scalars(select(Book).limit(100))).all()


@router.post("", response_model=BookRead, status_code=HTTPStatus.CREATED)
async def create_book(
    data: BookCreate, actor: Annotated[Identity, require("books:read")], session: SessionDep
) -> Book:
    book = Book(title=data.title)
    session.add(book)
    await session.flush()
    return book


@router.post("/many", status_code=HTTPStatus.CREATED)
async def create_books(data: list[BookCreate], user: CurrentUser, session: SessionDep) -> int:
    session.add_all(Book(title=book.title) for book in data)
    return len(data)
"""


TESTS = """
from fastapi.testclient import TestClient

BOOKS = "/api/v1/books"


def test_nobody_adds_a_book_without_a_log_in(client: TestClient) -> None:
    assert client.post(BOOKS, json={"title": "Emma"}).status_code == 401


def test_an_administrator_adds_a_book(client: TestClient, admin: dict[str, str]) -> None:
    answer = client.post(BOOKS, json={"title": "Emma"}, headers=admin)

    assert answer.status_code == 201
    assert client.get(BOOKS, headers=admin).json() == [{"id": 1, "title": "Emma"}]


def test_a_visitor_may_not(client: TestClient, visitor: dict[str, str]) -> None:
    assert client.get(BOOKS, headers=visitor).status_code == 403
"""


def insert(file: Path, before: str, text: str) -> None:
    source = file.read_text("utf-8")
    assert before in source
    file.write_text(source.replace(before, f"{text}{before}", 1), "utf-8")


def test_a_resource_of_ones_own_is_added_as_the_readme_says(
    generate: Generate, tmp_path: Path
) -> None:
    folder = tmp_path / "shelf"
    shutil.copytree(generate(auth=True).path, folder)
    project = Project(folder, {})
    project.succeed("alembic", "upgrade", "head")
    (folder / "app/models/book.py").write_text(MODEL.lstrip())
    project.succeed("alembic", "revision", "-m", "add_book", "--autogenerate")
    (folder / "app/schemas/book.py").write_text(SCHEMA.lstrip())
    (folder / "app/api/v1/books_router.py").write_text(ROUTER.lstrip())
    (folder / "tests/auth/test_books.py").write_text(TESTS.lstrip())
    routers, permissions = folder / "app/api/routers.py", folder / "app/permissions.py"
    insert(
        routers,
        "from app.api.v1.health_router",
        "from app.api.v1.books_router import router as books\n",
    )
    insert(routers, "    app.include_router(v1)\n", "    v1.include_router(books)\n")
    insert(permissions, "]\n\nPERMISSIONS", '    "books:read",\n')
    insert(permissions, "}\n\n", '    "books:read": "See books",\n')
    project.succeed("alembic", "upgrade", "head")
    project.succeed(
        "app", "user", "create", "ada", "ada@example.com", stdin="seven wet otters on a raft\n"
    )

    granted = project.succeed("app", "permission", "grant", "ada", "books:read")

    assert "ada holds books:read." in granted
    project.succeed("ruff", "check")
    project.succeed("ruff", "format", "--check")
    project.succeed("mypy")
    assert "passed" in project.succeed("pytest", "-q")
