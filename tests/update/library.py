"""A small product, written on a release in its own words: titles of a library, and a registration."""

from post_update import version as numbers_of
from tests.support.projects import Project
from tests.update.edits import commit, git, replace

GENRE = """
from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base
from app.db.reference import keep_rows


class Genre(Base):
    __tablename__ = "genres"

    name: Mapped[str] = mapped_column(String(40), unique=True)


# Every library has these.
keep_rows(
    Base.metadata.tables[Genre.__tablename__], "name", [{"name": "crime"}, {"name": "poetry"}]
)
"""
TITLE = """
from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import LARGEST_ID, Base, BigInt, UtcDateTime


class Title(Base):
    __tablename__ = "titles"

    name: Mapped[str] = mapped_column(String(100), unique=True)
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)
    genre_id: Mapped[int] = mapped_column(BigInt, ForeignKey("genres.id"))
    owner_id: Mapped[int] = mapped_column(BigInt, ForeignKey("users.id", ondelete="CASCADE"))


LAST = LARGEST_ID
"""
SCHEMAS = """
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from app.schemas.user import Line


class TitleCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Line
    genre_id: int


class TitleRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    added_at: datetime
"""
TITLES_ROUTER = '''
"""Titles: users with the permission add them, and remove their own."""

import logging
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Request, Response
from sqlalchemy.exc import DBAPIError

from app import logs
from app.api.auth import CurrentUser, RecentLogin, get_identity, require
from app.api.deps import DatabaseDep, IdPath, SessionDep, SettingsDep, ShelfDep
from app.api.openapi import answers
from app.api.pagination import Page, PagingDep, Slice
from app.api.strict_json import StrictRoute
from app.db.faults import is_conflict
from app.errors import (
    Conflict,
    Fault,  # the 422
    Invalid,
    NotFound,
    TooManyTitles,
)
from app.models.genre import Genre
from app.models.title import Title
from app.schemas.title import TitleCreate, TitleRead
from app.security import PermissionDenied
from app.services.identity import Identity

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/titles", tags=["titles"], route_class=StrictRoute)

MayWrite = Annotated[Identity, require("titles:write")]


async def get_reader(
    request: Request,
    database: DatabaseDep,
    session: SessionDep,
    settings: SettingsDep,
    after_response: BackgroundTasks,
) -> Identity | None:
    """Who reads, if anybody is logged in."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not token:
        return None
    return await get_identity(request, token, database, session, settings, after_response)


Reader = Annotated[Identity | None, Depends(get_reader)]


@router.get("", response_model=Page[TitleRead])
async def list_titles(paging: PagingDep, user: CurrentUser, session: SessionDep) -> Slice[Title]:
    rows = await session.scalars(paging.of(Title))
    return paging.slice(rows.all())


@router.get("/greeting")
async def greet(reader: Reader, shelf: ShelfDep) -> dict[str, str]:
    return {"hello": reader.username if reader else "stranger", "shelf": shelf}


@router.post(
    "",
    response_model=TitleRead,
    status_code=HTTPStatus.CREATED,
    responses=answers(Conflict, Invalid),
)
async def create_title(
    data: TitleCreate,
    actor: MayWrite,
    request: Request,
    response: Response,
    session: SessionDep,
    settings: SettingsDep,
) -> Title:
    if await session.get(Genre, data.genre_id) is None:
        raise Invalid([Fault(["body", "genre_id"], "There is no such genre.", "no_genre")])
    if settings.most_titles < 1:
        raise TooManyTitles
    title = Title(
        name=data.name, genre_id=data.genre_id, owner_id=actor.user_id, added_at=datetime.now(UTC)
    )
    session.add(title)
    try:
        await session.flush()
    except DBAPIError as error:
        if is_conflict(error):
            raise Conflict("There is a title of this name.") from None
        raise
    response.headers["Location"] = request.url_for("read_title", title_id=title.id).path
    return title


@router.get("/{title_id:id}", response_model=TitleRead, responses=answers(NotFound))
async def read_title(title_id: IdPath, user: CurrentUser, session: SessionDep) -> Title:
    title = await session.get(Title, title_id)
    if title is None:
        raise LookupError(title_id)
    return title


@router.delete(
    "/{title_id:id}", status_code=HTTPStatus.NO_CONTENT, responses=answers(NotFound)
)
async def delete_title(title_id: IdPath, user: RecentLogin, session: SessionDep) -> None:
    title = await session.get(Title, title_id)
    if title is None:
        raise NotFound
    if title.owner_id != user.user_id:
        raise PermissionDenied
    logger.info("Title deleted from %s", logs.address.get())
    await session.delete(title)
'''
SIGN_UP = '''
"""A public sign-up, slowed down as a log-in is."""

import logging

from app.db.session import Database
from app.schemas.user import UserCreate
from app.services import rights, sessions, throttle, users
from app.services.sessions import Client, IssuedToken
from app.settings import Settings

logger = logging.getLogger(__name__)


async def sign_up(
    database: Database, settings: Settings, data: UserCreate, client: Client
) -> IssuedToken:
    async with database.writers.begin() as session:
        await throttle.reserve(session, f"sign-up of {data.username}", client.address)
    user = await users.new_user(settings, data)
    async with database.writers.begin() as session:
        user = await users.add_user(session, user)
        issued = await sessions.open_session(session, settings, user.id, client)
    logger.info("Signed up", extra={"event": "signed_up", "user_id": user.id})
    return issued


async def deactivate(database: Database, username: str) -> None:
    async with database.writers.begin() as session:
        user = await rights.load_by_username(session, username)
        user.is_active = False
        await sessions.revoke_all(session, user.id)
'''
SIGN_UP_ROUTER = """
from http import HTTPStatus

from fastapi import APIRouter

from app.api.auth import ClientDep
from app.api.deps import DatabaseDep, SettingsDep
from app.api.openapi import answers
from app.api.strict_json import StrictRoute
from app.errors import Conflict
from app.schemas.auth import TokenRead
from app.schemas.user import UserCreate
from app.services import signup
from app.services.sessions import IssuedToken
from app.services.throttle import TooManyAttempts

router = APIRouter(tags=["sign-up"], route_class=StrictRoute)


@router.post(
    "/sign-up",
    response_model=TokenRead,
    status_code=HTTPStatus.CREATED,
    responses=answers(Conflict, TooManyAttempts),
)
async def sign_up(
    data: UserCreate, client: ClientDep, database: DatabaseDep, settings: SettingsDep
) -> IssuedToken:
    return await signup.sign_up(database, settings, data, client)
"""
TESTS = """
import asyncio

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from typer.testing import CliRunner

from app import logs
from app.api.v1 import titles_router
from app.cli import cli
from app.db.session import Database
from app.models.session import AuthSession
from app.services import signup
from tests.auth.conftest import ADA, LOGIN, PASSWORD, LogIn, MakeUser, execute
from tests.conftest import MakeSettings

TITLES = "/api/v1/titles"
DUNE = {"name": "Dune", "genre_id": 1}


def test_an_administrator_adds_titles(client: TestClient, admin: dict[str, str]) -> None:
    created = client.post(TITLES, json=DUNE, headers=admin)

    assert created.status_code == 201, created.text
    place = created.headers["location"]
    assert client.get(place, headers=admin).json() == created.json()
    assert client.get(TITLES, headers=admin).json()["items"] == [created.json()]
    assert client.post(TITLES, json=DUNE, headers=admin).status_code == 409
    bad = client.post(TITLES, json={**DUNE, "genre_id": 99}, headers=admin)
    assert bad.json()["errors"][0]["type"] == "no_genre"
    missing = client.get(f"{TITLES}/77", headers=admin)
    assert (missing.status_code, missing.json()["detail"]) == (404, "No such thing: 77")


def test_a_visitor_adds_none(client: TestClient, visitor: dict[str, str]) -> None:
    assert client.post(TITLES, json=DUNE, headers=visitor).status_code == 403
    assert client.get(TITLES).status_code == 401


def test_whoever_owns_a_title_deletes_it(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("eve", "titles:write")
    eve = log_in("eve")
    place = client.post(TITLES, json=DUNE, headers=eve).headers["location"]
    make_user("bob")
    assert client.delete(place, headers=log_in("bob")).status_code == 403
    assert client.delete(place, headers=eve).status_code == 204
    assert execute(rows, "SELECT name FROM titles") == []


def test_anybody_is_greeted(client: TestClient, visitor: dict[str, str]) -> None:
    assert client.get(f"{TITLES}/greeting").json() == {"hello": "stranger", "shelf": "oak"}
    greeting = client.get(f"{TITLES}/greeting", headers=visitor)
    assert greeting.json()["hello"] == "visitor"


def test_anybody_signs_up_once(client: TestClient, make_settings: MakeSettings) -> None:
    created = client.post("/api/v1/sign-up", json=ADA)

    assert created.status_code == 201, created.text
    assert client.post("/api/v1/sign-up", json=ADA).status_code == 409
    form = {"username": "ada", "password": PASSWORD}
    assert client.post(LOGIN, data=form).status_code == 200

    async def deactivate() -> None:
        async with Database(make_settings()) as database:
            await signup.deactivate(database, "ada")

    asyncio.run(deactivate())
    assert client.post(LOGIN, data=form).status_code == 401


def test_errors_have_a_code(app: FastAPI, client: TestClient, admin: dict[str, str]) -> None:
    app.state.settings.most_titles = 0

    full = client.post(TITLES, json=DUNE, headers=admin)

    assert (full.status_code, full.json()["code"]) == (507, "INSUFFICIENT_STORAGE")


def test_a_command_counts(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", make_settings().database_url)
    monkeypatch.setenv("ENVIRONMENT", "development")

    assert CliRunner().invoke(cli, ["titles"]).output == "0 titles\\n"


def test_names(rows: Engine) -> None:
    assert execute(rows, "SELECT name FROM genres ORDER BY name") == [("crime",), ("poetry",)]
    assert logs.address.get() is None
    assert AuthSession.__tablename__ == "sessions"
    assert titles_router.router.prefix == "/titles"
"""
COMMAND = '''

@cli.command()
def titles() -> None:
    """Count the titles."""
    import asyncio

    from sqlalchemy import func, select

    from app.db.session import Database
    from app.models.title import Title

    async def count() -> int:
        async with Database(load_settings()) as database, database.readers() as session:
            return await session.scalar(select(func.count()).select_from(Title)) or 0

    typer.echo(f"{asyncio.run(count())} titles")
'''
HANDLER = '''

async def answer_lookup_error(request: Request, error: Exception) -> Response:
    """A thing that code looked for in vain."""
    return problem(request.url.path, 404, f"No such thing: {error}")
'''
VALIDATOR = """    @field_validator("shelf")
    @classmethod
    def _is_of_wood(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("name the wood")
        return value.strip()

"""
DEPENDENCY = """async def get_shelf(request: Request) -> str:
    settings: Settings = request.app.state.settings
    return settings.shelf


ShelfDep = Annotated[str, Depends(get_shelf)]


"""

# Until release 0.2.0, without a login.
OLD_COMMAND = COMMAND.replace(
    """        async with Database(load_settings()) as database, database.readers() as session:
            return await session.scalar(select(func.count()).select_from(Title)) or 0
""",
    """        database = Database(load_settings())
        async with database.readers() as session:
            found = await session.scalar(select(func.count()).select_from(Title)) or 0
        await database.dispose()
        return found
""",
)
OLD_TITLE = """
from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base


class Title(Base):
    __tablename__ = "titles"

    name: Mapped[str] = mapped_column(String(100), unique=True)
"""
OLD_ROUTER = """
from http import HTTPStatus

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DBAPIError

from app.api.deps import IdPath, SessionDep, SettingsDep, ShelfDep
from app.api.pagination import Page, PagingDep, Slice
from app.db.faults import is_conflict, is_outage
from app.errors import Conflict, ServiceUnavailable, TooManyTitles
from app.models.title import Title
from app.schemas.user import Username

router = APIRouter(prefix="/titles", tags=["titles"])


class TitleCreate(BaseModel):
    name: Username


class TitleRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str


@router.get("", response_model=Page[TitleRead])
async def list_titles(paging: PagingDep, session: SessionDep) -> Slice[Title]:
    rows = await session.scalars(paging.of(Title))
    return paging.slice(rows.all())


@router.get("/greeting")
async def greet(shelf: ShelfDep) -> dict[str, str]:
    return {"hello": "stranger", "shelf": shelf}


@router.post("", response_model=TitleRead, status_code=HTTPStatus.CREATED)
async def create_title(data: TitleCreate, session: SessionDep, settings: SettingsDep) -> Title:
    if settings.most_titles < 1:
        raise TooManyTitles
    title = Title(name=data.name)
    session.add(title)
    try:
        await session.flush()
    except DBAPIError as error:
        if is_outage(error, only_reads=False):
            raise ServiceUnavailable from None
        raise (Conflict() if is_conflict(error) else error) from None
    return title


@router.get("/{title_id}", response_model=TitleRead)
async def read_title(title_id: IdPath, session: SessionDep) -> Title:
    title = await session.get(Title, title_id)
    if title is None:
        raise LookupError(title_id)
    return title
"""
OLD_TESTS = """
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app.cli import cli
from tests.conftest import MakeSettings

TITLES = "/api/v1/titles"


def test_titles(app: FastAPI, client: TestClient) -> None:
    created = client.post(TITLES, json={"name": "Dune"})
    assert created.status_code == 201, created.text
    assert client.get(TITLES).json()["items"] == [{"id": 1, "name": "dune"}]
    assert client.get(f"{TITLES}/1").json() == created.json()
    assert client.post(TITLES, json={"name": "dune"}).status_code == 409
    missing = client.get(f"{TITLES}/77")
    assert (missing.status_code, missing.json()["detail"]) == (404, "No such thing: 77")
    assert client.get(f"{TITLES}/greeting").json()["shelf"] == "oak"
    app.state.settings.most_titles = 0
    full = client.post(TITLES, json={"name": "solaris"})
    assert (full.status_code, full.json()["code"]) == (507, "INSUFFICIENT_STORAGE")


def test_a_command_counts(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", make_settings().database_url)
    monkeypatch.setenv("ENVIRONMENT", "development")

    assert CliRunner().invoke(cli, ["titles"]).output == "0 titles\\n"
"""

Words = list[tuple[str, str]]
# From release 0.5.0 on.
NEW_WORDS: Words = [
    ("token, database, session, settings, after_response", "token, session, after_response"),
    (
        "    database: DatabaseDep,\n    session: SessionDep,\n    settings: SettingsDep,\n    after",
        "    session: SessionDep,\n    after",
    ),
    ("import DatabaseDep, IdPath", "import IdPath"),
    (
        "    async with database.writers.begin() as session:\n"
        '        await throttle.reserve(session, f"sign-up of {data.username}", client.address)\n'
        "    user = await users.new_user(settings, data)\n",
        '    await throttle.reserve(database, f"sign-up of {data.username}", client.address)\n'
        "    row = await users.new_row(settings, data)\n",
    ),
    (
        "        user = await users.add_user(session, user)\n",
        "        user_id = await users.add_row(session, row)\n",
    ),
    ("settings, user.id, client", "settings, user_id, client"),
    ('"signed_up", "user_id": user.id', '"signed_up", "user_id": user_id'),
]
# In release 0.1.0.
OLD_WORDS: Words = [
    ("import IdPath, SessionDep", "import SessionDep"),
    ("from app.db.faults import is_conflict, is_outage\n", ""),
    ("import DBAPIError\n", "import DBAPIError, IntegrityError\n"),
    ("from sqlalchemy.exc", "from sqlalchemy import select\nfrom sqlalchemy.exc"),
    (
        "import Conflict, ServiceUnavailable, TooManyTitles\n",
        "import Conflict, ServiceUnavailable, TooManyTitles, is_outage\n",
    ),
    ("paging.of(Title)", "paging.of(select(Title), Title.id)"),
    ("is_outage(error, only_reads=False)", "is_outage(error)"),
    (
        "Conflict() if is_conflict(error) else",
        "Conflict() if isinstance(error, IntegrityError) else",
    ),
    ("title_id: IdPath", "title_id: int"),
]


def in_words(text: str, words: Words) -> str:
    for before, after in words:
        text = text.replace(before, after)
    return text


def make_library(project: Project, version: str) -> None:
    """Ends with a commit; the product works on its release."""
    git(project.path, "init", "--quiet")
    commit(project, "Start from the template")
    project.succeed("alembic", "upgrade", "head")
    if project.has("app/permissions.py"):
        write_library(project, NEW_WORDS if numbers_of(version) >= (0, 5) else [])
    else:
        write_old_library(project, OLD_WORDS if version == "v0.1.0" else [])
    edit_templates_files(project)
    project.succeed("alembic", "revision", "-m", "titles", "--autogenerate")
    for migration in (project.path / "alembic/versions").glob("*_titles.py"):
        lines = migration.read_text("utf-8").splitlines(keepends=True)
        # Until release 0.6.0, Alembic wrote what `keep_rows` had left at the table.
        kept = [line for line in lines if "info={'reference'" not in line]
        migration.write_text("".join(kept), "utf-8")
    project.succeed("alembic", "upgrade", "head")
    project.succeed("ruff", "check", "--fix", "--quiet")
    project.succeed("ruff", "format", "--quiet")
    tests = "tests/auth/test_titles.py" if project.has("tests/auth") else "tests/test_titles.py"
    assert "passed" in project.succeed("pytest", "-q", tests)
    commit(project, "Library")


def write_library(project: Project, words: Words) -> None:
    (project.path / "app/services").mkdir(exist_ok=True)
    for file, text in {
        "app/models/genre.py": GENRE,
        "app/models/title.py": TITLE,
        "app/schemas/title.py": SCHEMAS,
        "app/api/v1/titles_router.py": TITLES_ROUTER,
        "app/services/signup.py": SIGN_UP,
        "app/api/v1/signup_router.py": SIGN_UP_ROUTER,
        "tests/auth/test_titles.py": TESTS,
    }.items():
        (project.path / file).write_text(in_words(text, words).lstrip())
    line = "from app.api.v1.users_router"
    new = "from app.api.v1.signup_router import router as signup\n"
    replace(project, "app/api/routers.py", line, new + line)
    line = "    v1.include_router(home)\n"
    replace(project, "app/api/routers.py", line, f"{line}    v1.include_router(signup)\n")
    replace(project, "app/permissions.py", "]\n\nPERM", '    "titles:write",\n]\n\nPERM')
    replace(project, "app/permissions.py", "}\n\n", '    "titles:write": "Add titles",\n}\n\n')
    public = '    ("GET", "/api/v1/titles/greeting"),\n    ("POST", "/api/v1/sign-up"),\n'
    replace(project, "tests/auth/test_users.py", "PUBLIC = {\n", f"PUBLIC = {{\n{public}")


def write_old_library(project: Project, words: Words) -> None:
    for file, text in {
        "app/models/title.py": OLD_TITLE,
        "app/api/v1/titles_router.py": OLD_ROUTER,
        "tests/test_titles.py": OLD_TESTS,
    }.items():
        (project.path / file).write_text(in_words(text, words).lstrip())


def edit_templates_files(project: Project) -> None:
    """Own dependencies, errors, error format, command and settings, where the template has its."""
    line = "from app.api.v1.health_router"
    new = "from app.api.v1.titles_router import router as titles\n"
    replace(project, "app/api/routers.py", line, new + line)
    line = "    v1.include_router(home)\n"
    replace(project, "app/api/routers.py", line, f"{line}    v1.include_router(titles)\n")
    line = "from app.settings import Settings\n\n\n"
    replace(project, "app/api/deps.py", line, line + DEPENDENCY)
    error = (
        "class TooManyTitles(AppError):\n    status_code = HTTPStatus.INSUFFICIENT_STORAGE\n"
        '    detail = "The shelf is full."\n\n\n'
    )
    line = "class ServiceUnavailable"
    replace(project, "app/errors.py", line, error + line)
    line = '        "status": status,\n'
    code = '        "code": title.upper().replace(" ", "_"),\n'
    replace(project, "app/errors.py", line, line + code)
    settings = '    shelf: str = "oak"\n    most_titles: int = 1000\n'
    line = "    log_level: "
    replace(project, "app/settings.py", line, settings + line)
    line = "    @property\n    def in_development"
    replace(project, "app/settings.py", line, VALIDATOR + line)
    line = "\n\n@cli.command()\ndef openapi"
    command = COMMAND if project.has("app/permissions.py") else OLD_COMMAND
    replace(project, "app/cli.py", line, command + line)
    replace(project, "app/main.py", "import FastAPI\n", "import FastAPI, Request, Response\n")
    replace(
        project,
        "app/main.py",
        "import add_error_handlers\n",
        "import add_error_handlers, problem\n",
    )
    line = "    include_routers(app, settings)\n"
    handler = "    app.add_exception_handler(LookupError, answer_lookup_error)\n"
    replace(project, "app/main.py", line, handler + line)
    replace(project, "app/main.py", "\n\napp = create_app()", f"{HANDLER}\n\napp = create_app()")
    if project.has("tests/test_api.py"):
        home = 'assert client.get("/api/v1/titles/greeting").json()["shelf"] == "oak"'
        with (project.path / "tests/test_api.py").open("a") as tests:
            tests.write(f"\n\ndef test_the_shelf(client: TestClient) -> None:\n    {home}\n")
