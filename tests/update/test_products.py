"""A product that calls the template's functions from its own code, updated from every release with a login."""

import pytest
from copier.errors import TaskError

from tests.support.projects import Project
from tests.update.conftest import Start, Update
from tests.update.edits import commit, git, replace
from tools.releases import releases

pytestmark = pytest.mark.slow

HEAD = "v1000.0.0"
WITH_LOGIN = [f"v{version}" for version in releases()][2:]

MODEL = """
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import LARGEST_ID, Base, BigInt, UtcDateTime


class Shelf(Base):
    __tablename__ = "shelves"

    name: Mapped[str] = mapped_column(String(50), unique=True)
    owner_id: Mapped[int] = mapped_column(BigInt, ForeignKey("users.id", ondelete="CASCADE"))


KINDS = (LARGEST_ID, UtcDateTime)
"""
ROUTER = '''
"""Shelves of the user."""

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from app import logs
from app.api.auth import CurrentUser, RecentLogin, require
from app.api.deps import DatabaseDep, IdPath, SessionDep, SettingsDep
from app.api.openapi import answers
from app.api.strict_json import StrictRoute
from app.db.faults import is_conflict
from app.errors import (
    Conflict,
    Fault,  # the 422
    Invalid,
    NotFound,
)
from app.models.shelf import Shelf
from app.schemas.user import Username
from app.security import PermissionDenied
from app.services import identity, sessions
from app.services.identity import Identity

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/shelves", tags=["shelves"], route_class=StrictRoute)


class ShelfRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: Username


class ShelfCreate(BaseModel):
    name: str


@router.get("", response_model=list[ShelfRead])
async def list_shelves(user: CurrentUser, session: SessionDep) -> Sequence[Shelf]:
    query = select(Shelf).where(Shelf.owner_id == user.user_id).limit(100)
    return (await session.scalars(query)).all()


@router.post("", response_model=ShelfRead, status_code=HTTPStatus.CREATED)
async def create_shelf(
    data: ShelfCreate, actor: Annotated[Identity, require("shelves:write")], session: SessionDep
) -> Shelf:
    if not data.name.strip():
        raise Invalid([Fault(["body", "name"], "Name it.", "blank")])
    shelf = Shelf(name=data.name, owner_id=actor.user_id)
    session.add(shelf)
    try:
        await session.flush()
    except DBAPIError as error:
        raise (Conflict() if is_conflict(error) else error) from None
    return shelf


@router.delete("/{shelf_id}", status_code=HTTPStatus.NO_CONTENT, responses=answers(NotFound))
async def delete_shelf(
    shelf_id: IdPath,
    user: RecentLogin,
    session: SessionDep,
    settings: SettingsDep,
    database: DatabaseDep,
) -> None:
    await identity.identify(session, settings, "")
    shelf = await session.get(Shelf, shelf_id)
    if shelf is None:
        raise NotFound
    if shelf.owner_id != user.user_id:
        raise PermissionDenied
    logger.info("Shelf deleted by %s: %s %s", logs.address.get(), sessions, settings.environment)
    await session.delete(shelf)
'''
TESTS = """
from fastapi.testclient import TestClient

from app import logs
from app.api.v1 import shelves_router
from app.db.session import Database
from app.models.session import AuthSession
from tests.conftest import MakeSettings

SHELVES = "/api/v1/shelves"


def test_an_administrator_has_shelves(client: TestClient, admin: dict[str, str]) -> None:
    shelf = client.post(SHELVES, json={"name": "oak"}, headers=admin)
    assert shelf.status_code == 201, shelf.text
    assert client.post(SHELVES, json={"name": "oak"}, headers=admin).status_code == 409
    blank = client.post(SHELVES, json={"name": " "}, headers=admin)
    assert blank.json()["errors"][0]["msg"] == "Name it."
    assert client.get(SHELVES, headers=admin).json() == [shelf.json()]
    assert client.delete(f"{SHELVES}/1", headers=admin).status_code == 204
    assert client.delete(f"{SHELVES}/1", headers=admin).status_code == 404
    assert client.get(SHELVES).status_code == 401


def test_names(make_settings: MakeSettings) -> None:
    assert Database(make_settings()).readers
    assert logs.address.get() is None
    assert AuthSession.__tablename__ == "sessions"
    assert shelves_router.router.prefix == "/shelves"
"""


def make_product(project: Project) -> None:
    git(project.path, "init", "--quiet")
    commit(project, "Start from the template")
    for file, text in {
        "app/models/shelf.py": MODEL,
        "app/api/v1/shelves_router.py": ROUTER,
        "tests/auth/test_shelves.py": TESTS,
    }.items():
        (project.path / file).write_text(text.lstrip())
    line = "from app.api.v1.users_router"
    new = "from app.api.v1.shelves_router import router as shelves\n"
    replace(project, "app/api/routers.py", line, new + line)
    line = "    v1.include_router(home)\n"
    replace(project, "app/api/routers.py", line, f"{line}    v1.include_router(shelves)\n")
    replace(project, "app/permissions.py", "]\n\nPERM", '    "shelves:write",\n]\n\nPERM')
    replace(project, "app/permissions.py", "}\n\n", '    "shelves:write": "Add shelves",\n}\n\n')
    revision = ("alembic", "revision", "-m", "shelves", "--autogenerate")
    project.succeed("alembic", "upgrade", "head")
    project.succeed(*revision)
    project.succeed("alembic", "upgrade", "head")
    project.succeed("mypy")
    assert "passed" in project.succeed("pytest", "-q", "tests/auth/test_shelves.py")
    commit(project, "Shelves")


@pytest.mark.parametrize("version", WITH_LOGIN)
def test_the_code_of_a_product_still_works(start: Start, update: Update, version: str) -> None:
    project = start(version)
    make_product(project)

    update(project, HEAD)

    assert git(project.path, "ls-files", "--unmerged") == ""
    assert "    Fault,  # the 422" not in project.read("app/api/v1/shelves_router.py")
    assert "    FieldError,  # the 422" in project.read("app/api/v1/shelves_router.py")
    assert 'SHELVES_WRITE = "shelves:write", "Add shelves"' in project.read("app/permissions.py")
    # Longer names can make a line too long.
    project.succeed("ruff", "format")
    for command in (["ruff", "check"], ["mypy"]):
        project.succeed(*command)
    project.succeed("alembic", "upgrade", "head")
    assert "passed" in project.succeed("pytest", "-q")


def test_code_that_can_no_longer_work_is_named_and_the_database_is_not_touched(
    start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start("v0.6.0")
    make_product(project)
    with (project.path / "app/api/v1/shelves_router.py").open("a") as router:
        router.write(
            "\n\nfrom app.api.pagination import PagingDep, Slice\n"
            "from app.security import new_token\n\n\n"
            '@router.get("/all", response_model=None)\n'
            "async def list_all(paging: PagingDep, session: SessionDep) -> Slice[Shelf]:\n"
            "    rows = await session.scalars(paging.of(Shelf))\n"
            "    return paging.slice(rows.all())\n\n\n"
            "print(new_token)\n"
        )
    commit(project, "Lists")

    with pytest.raises(TaskError):
        update(project, HEAD)

    said = capfd.readouterr().out
    assert "app.security.new_token: `create_login_session` from app.auth.sessions" in said
    assert "app.api.pagination.PagingDep: now app.core.pagination.PageDep, rewritten" in said
    assert "The database was not touched" in said
    assert "session: SessionDep) -> Page[Shelf]:" in project.read("app/api/v1/shelves_router.py")


def test_a_product_without_login_keeps_its_pages(start: Start, update: Update) -> None:
    project = start("v0.2.0")
    git(project.path, "init", "--quiet")
    (project.path / "app/lists.py").write_text(
        "from app.api.pagination import Page\n\nprint(Page)\n"
    )
    commit(project, "Lists")

    update(project, HEAD)

    assert project.has("app/core/pagination.py")
    project.succeed("app", "--help")
    project.succeed("mypy")
    commit(project, "Update")
    update(project, HEAD)
    assert git(project.path, "status", "--porcelain") == ""
