"""Routes that go wrong in every way, for the tests of error responses and transactions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from fastapi import Body, Cookie, FastAPI, Form, Header, Query
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine, Insert, MetaData, create_engine, insert, text

from app.api.deps import DatabaseDep, SessionDep
from app.core.app import build_app
from app.core.database import synchronous_url
from app.core.routing import Router
from app.errors import Conflict
from app.models.user import User
from app.settings import Settings

SECRET = "correct horse battery staple"


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Probe(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None


class Note(BaseModel):
    """A schema as an owner may write it: plain text, without a type of app.core.types."""

    text: str
    tags: list[str] = []
    counts: dict[str, int] = {}


class NoteForm(BaseModel):
    text: str
    tags: list[str] = []


def insert_user(number: int) -> Insert:
    name = f"user-{number}"
    return insert(User).values(id=number, username=name, email=name, password="")


def with_routes_of(app: FastAPI, settings: Settings) -> FastAPI:
    """A new app with the routes of another one. FastAPI would take long to prepare them again."""
    new = build_app(settings, title=app.title, description=app.description, version=app.version)
    new.state.settings = settings
    new.router.routes.extend(app.router.routes)
    new.router.lifespan_context = app.router.lifespan_context
    return new


def with_router(app: FastAPI, router: Router) -> FastAPI:
    """A new app with the routes of this one, and those of the router."""
    app = with_routes_of(app, app.state.settings)
    app.include_router(router)
    return app


@contextmanager
def with_tables(database_url: str, metadata: MetaData) -> Iterator[Engine]:
    engine = create_engine(synchronous_url(database_url))
    metadata.create_all(engine)
    yield engine
    engine.dispose()


def add_failing_routes(app: FastAPI) -> None:
    router = Router()

    @router.get("/fails")
    async def fail() -> None:
        raise RuntimeError(SECRET)

    @router.get("/clashes")
    async def clash() -> None:
        raise Conflict("Ada is taken.")

    @router.get("/plain")
    async def fail_in_plain_text() -> PlainTextResponse:
        response = PlainTextResponse("my words", 400)
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    @router.get("/mistakes")
    async def query_unknown_table(session: SessionDep) -> None:
        await session.execute(text("SELECT * FROM no_such_table"))

    @router.post("/numbers")
    async def read_number(probe: Probe) -> int:
        return probe.number

    @router.delete("/numbers")
    async def delete_numbers() -> None: ...

    @router.post("/bodies")
    async def read_body(body: Annotated[bytes, Body()]) -> int:
        return len(body)

    app.include_router(router)


def add_text_routes(app: FastAPI) -> None:
    """Routes that read text from every part of a request."""
    router = Router(prefix="/notes")

    @router.post("")
    async def read_note(note: Note) -> str:
        return note.text

    @router.post("/form")
    async def read_form(form: Annotated[NoteForm, Form()]) -> list[str]:
        return [form.text, *form.tags]

    @router.post("/fields")
    async def read_fields(text: Annotated[str, Form()], other: Annotated[str, Form()] = "") -> str:
        return text + other

    @router.get("/query")
    async def read_query(
        text: str = "", tags: Annotated[list[str] | None, Query()] = None
    ) -> list[str]:
        return [text, *(tags or [])]

    @router.get("/header")
    async def read_header(x_text: Annotated[str, Header()], text: Annotated[str, Cookie()]) -> str:
        return x_text + text

    @router.get("/path/{text}")
    async def read_path(text: str) -> str:
        return text

    app.include_router(router)

    @app.post("/own-notes")
    async def read_own_note(note: Note) -> str:
        return note.text


def add_database_routes(app: FastAPI) -> None:
    router = Router()

    @router.get("/rows")
    async def count_rows(session: SessionDep) -> int:
        return await session.scalar(text("SELECT count(*) FROM users")) or 0

    @router.post("/writes")
    async def write(session: SessionDep) -> None:
        await session.execute(insert_user(1))

    @router.get("/writes")
    async def write_in_get(session: SessionDep) -> None:
        await session.execute(text("DELETE FROM users"))

    @router.post("/slow")
    async def read_work_write(database: DatabaseDep, session: SessionDep) -> int:
        async with database.readers() as reader:
            seen = await reader.scalar(text("SELECT count(*) FROM users"))
        # Another request can write here, since neither session holds a lock.
        async with database.writers.begin() as other:
            await other.execute(insert_user(2))
        await session.execute(insert_user(1))
        return seen or 0

    app.include_router(router)
