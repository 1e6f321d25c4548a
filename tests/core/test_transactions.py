"""The transaction of a request: what it locks, what it keeps, and what happens without a database."""

import asyncio
import os
import re
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Response, WebSocket
from fastapi.requests import HTTPConnection
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from sqlalchemy import insert, select, text
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InvalidRequestError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import selectinload
from starlette.background import BackgroundTask

from app.api.deps import SessionDep
from app.core.database import Database
from app.db.session import get_session
from app.models.user import Permission, User, user_permissions
from tests.conftest import MakeSettings
from tests.core.routes import insert_user

ADA = {"username": "ada", "email": "ada@example.com", "password": "hash"}


def test_slow_work_can_stay_outside_of_the_transaction(client: TestClient) -> None:
    assert client.post("/slow").json() == 0
    assert client.get("/rows").json() == 2


def test_a_value_that_is_taken_is_a_conflict(client: TestClient) -> None:
    assert client.post("/writes").status_code == 200
    assert client.post("/writes").status_code == 409


def test_a_reference_to_a_missing_row_is_a_conflict_that_says_so(
    app: FastAPI, client: TestClient
) -> None:
    @app.post("/lost")
    async def refer_to_nobody(session: SessionDep) -> None:
        await session.execute(insert(user_permissions).values(user_id=1, permission_id=1))

    response = client.post("/lost")

    assert response.status_code == 409
    assert "refers to one that does not exist" in response.json()["detail"]


@pytest.mark.parametrize("table", ["users", "user_permissions"])
def test_i10_a_row_that_another_request_has_changed_is_a_conflict(
    app: FastAPI, client: TestClient, table: str
) -> None:
    """On PostgreSQL: a row can be deleted between the read and the write of a request."""

    @app.post("/stale")
    async def change_what_is_gone(session: SessionDep) -> None:
        ada = User(**ADA, permissions=[Permission(name="test:made", description="See tests")])
        session.add(ada)
        await session.flush()
        # The session does not know of it, as if another request had committed it.
        await session.execute(text("DELETE FROM user_permissions"))
        if table == "users":
            await session.execute(text("DELETE FROM users"))
            ada.username = "grace"
        else:
            ada.permissions = []

    response = client.post("/stale")
    assert response.status_code == 409
    assert "Try again" in response.json()["detail"]


def test_i12_a_get_request_cannot_write(client: TestClient) -> None:
    assert client.get("/writes").status_code == 500
    assert client.get("/rows").json() == 0


@pytest.mark.parametrize("level", ["SERIALIZABLE", "AUTOCOMMIT"])
def test_i12_a_reader_cannot_write_with_another_isolation_level(
    make_settings: MakeSettings, level: str
) -> None:
    async def work() -> None:
        async with Database(make_settings()) as database, database.readers() as session:
            await session.connection(execution_options={"isolation_level": level})
            await session.execute(insert_user(1))
            await session.commit()

    with pytest.raises((DBAPIError, InvalidRequestError)):
        asyncio.run(work())


def test_a_failed_commit_is_an_error(client: TestClient, database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            """
            CREATE TABLE parents (id INTEGER PRIMARY KEY);
            CREATE TABLE children (parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
            CREATE TRIGGER orphan AFTER INSERT ON users
            BEGIN INSERT INTO children VALUES (1); END;
            """
        )

    assert client.post("/writes").status_code == 409
    assert client.get("/rows").json() == 0


Use = Callable[[AsyncSession, AsyncConnection, Permission], Awaitable[object]]


async def flush(session: AsyncSession, *_: object) -> None:
    session.add(Permission(name="late", description=""))
    await session.flush()


async def begin(session: AsyncSession, *_: object) -> None:
    async with session.begin():
        await session.execute(insert_user(3))


async def begin_nested(session: AsyncSession, *_: object) -> None:
    async with session.begin_nested():
        await session.execute(insert_user(3))


async def use_kept_connection(_: AsyncSession, connection: AsyncConnection, __: object) -> None:
    await connection.execute(insert_user(3))


async def load_attribute(session: AsyncSession, _: object, permission: Permission) -> None:
    await session.refresh(permission)


async def load_lazily(session: AsyncSession, _: object, permission: Permission) -> None:
    await session.run_sync(lambda _: permission.description)


LATE_USES: list[Use] = [
    lambda session, *_: session.execute(insert_user(3)),
    lambda session, *_: session.connection(),
    lambda session, *_: session.run_sync(lambda inner: inner.execute(insert_user(3))),
    lambda session, *_: session.stream(text("SELECT * FROM users")),
    lambda session, *_: session.get(User, 1),
    flush,
    begin,
    begin_nested,
    use_kept_connection,
    load_attribute,
    load_lazily,
]


@pytest.mark.parametrize("how", ["background task", "stream", "task"])
@pytest.mark.parametrize("use", LATE_USES)
def test_a_session_that_is_used_after_its_request_fails_and_blocks_no_writer(
    app: FastAPI, client: TestClient, how: str, use: Use
) -> None:
    errors: list[SQLAlchemyError | None] = []
    kept: list[object] = []

    async def use_late(*arguments: Any) -> None:
        try:
            await use(*arguments)
        except SQLAlchemyError as error:
            errors.append(error)
        else:
            errors.append(None)

    async def lines(*arguments: Any) -> AsyncIterator[str]:
        await use_late(*arguments)
        yield "line"

    ended = asyncio.Event()

    async def wait_and_use(*arguments: Any) -> None:
        await ended.wait()
        await use_late(*arguments)

    @app.get("/ended")
    async def wait_for_task() -> None:
        ended.set()
        await asyncio.wait([task for task in kept if isinstance(task, asyncio.Task)])

    @app.post("/late")
    async def write_later(session: SessionDep) -> Response:
        await session.execute(insert_user(2))
        permission = Permission(name="early", description="")
        session.add(permission)
        await session.flush()
        session.expire(permission)
        arguments = (session, await session.connection(), permission)
        kept.append(arguments)
        if how == "stream":
            return StreamingResponse(lines(*arguments))
        if how == "task":
            kept.append(asyncio.create_task(wait_and_use(*arguments)))
            return Response()
        return Response(background=BackgroundTask(use_late, *arguments))

    assert client.post("/late").status_code == 200
    if how == "task":
        assert client.get("/ended").status_code == 200
    assert isinstance(errors[0], SQLAlchemyError)
    assert client.post("/writes").status_code == 200
    assert client.get("/rows").json() == 2


def test_a_task_that_uses_the_session_while_the_request_ends_blocks_no_writer(
    app: FastAPI, client: TestClient
) -> None:
    tasks: list[asyncio.Task[object]] = []

    async def work(session: AsyncSession) -> None:
        for number in range(10, 40):
            await session.execute(insert_user(number))

    @app.post("/racing")
    async def race(session: SessionDep) -> None:
        await session.execute(insert_user(2))
        tasks.append(asyncio.create_task(work(session)))
        await asyncio.sleep(0)

    @app.get("/ended")
    async def wait_for_tasks() -> None:
        await asyncio.wait(tasks)

    for _ in range(3):
        client.post("/racing")

    assert client.get("/ended").status_code == 200
    assert client.post("/writes").status_code == 200
    # Each failed, unless it was faster than the end of its request.
    assert all(isinstance(task.exception(), SQLAlchemyError | None) for task in tasks)


def test_a_websocket_can_only_read_and_takes_no_write_lock(
    app: FastAPI, client: TestClient
) -> None:
    @app.websocket("/socket")
    async def talk(socket: WebSocket, session: SessionDep) -> None:
        await socket.accept()
        await socket.send_json(await session.scalar(text("SELECT count(*) FROM users")))
        await socket.receive_text()
        try:
            await session.execute(insert_user(2))
        except DBAPIError as error:
            await socket.send_json(str(error.orig))

    with client.websocket_connect("/socket") as socket:
        assert socket.receive_json() == 0
        assert client.post("/writes").status_code == 200
        socket.send_text("now write")
        assert re.search("read-?only", socket.receive_json())


def test_a_missing_database_is_a_503(client: TestClient, database: Path) -> None:
    database.unlink()

    response = client.post("/writes")

    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert not database.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot move an open file")
def test_a_database_that_comes_back_is_used_again_but_another_one_is_not(
    client: TestClient, database: Path
) -> None:
    aside = database.with_name("aside.db")
    another = Path(shutil.copy(database, database.with_name("another.db")))
    assert client.post("/writes").status_code == 200

    database.rename(aside)
    assert client.post("/writes").status_code == 503
    assert client.get("/health/ready").status_code == 503
    aside.rename(database)
    assert client.get("/health/ready").status_code == 200

    another.replace(database)
    assert client.post("/writes").status_code == 503
    assert client.get("/health/ready").status_code == 503


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot replace an open file")
def test_no_worker_uses_a_file_that_was_replaced(
    make_settings: MakeSettings, database: Path, tmp_path: Path
) -> None:
    """One worker has read before and the other has written: neither may touch the new file."""
    another = Path(shutil.copy(database, tmp_path / "another.db"))

    def swap() -> None:
        another.replace(database)

    async def scenario() -> None:
        async with Database(make_settings()) as reader, Database(make_settings()) as writer:
            async with reader.readers() as session:
                await session.execute(text("SELECT 1 FROM users"))
            async with writer.writers.begin() as session:
                session.add(User(**ADA, permissions=[]))
            swap()
            for worker in (reader, writer):
                for sessions in (worker.readers, worker.writers):
                    with pytest.raises(OperationalError, match="was replaced"):
                        async with sessions() as session:
                            await session.execute(text("SELECT 1 FROM users"))

    before = another.read_bytes()
    asyncio.run(scenario())
    assert database.read_bytes() == before


def test_i10_writers_that_read_first_lose_no_update(make_settings: MakeSettings) -> None:
    """Two workers, with ten tasks each that read a number and write the next one."""

    async def add_one(database: Database) -> None:
        async with database.writers.begin() as session:
            # PostgreSQL locks this row. In SQLite, the transaction already has the lock.
            counter = await session.get_one(Permission, 101, with_for_update=True)
            counter.description = str(int(counter.description) + 1)

    async def scenario() -> object:
        async with Database(make_settings()) as one, Database(make_settings()) as another:
            async with one.writers.begin() as session:
                session.add(Permission(id=101, name="counter", description="0"))
            await asyncio.gather(*(add_one(worker) for worker in (one, another) for _ in range(10)))
            async with one.readers() as session:
                counter = await session.get_one(Permission, 101)
        return counter.description

    assert asyncio.run(scenario()) == "20"


def test_a_write_that_is_cancelled_while_it_waits_leaves_no_lock(
    make_settings: MakeSettings, database: Path
) -> None:
    async def scenario() -> None:
        async with Database(make_settings()) as app_database:

            async def write() -> None:
                async with app_database.writers.begin() as session:
                    await session.execute(text("DELETE FROM users"))

            with closing(sqlite3.connect(database, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                waiting = asyncio.create_task(write())
                await asyncio.sleep(0.1)
                waiting.cancel()
                await asyncio.sleep(0)
                # Now the driver's thread gets the lock that it was waiting for.
                other.execute("ROLLBACK")
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                other.execute("PRAGMA busy_timeout = 1000")
                other.execute("BEGIN IMMEDIATE")
                other.execute("ROLLBACK")
            await write()

    asyncio.run(scenario())


def test_a_request_that_is_cancelled_at_any_moment_leaves_no_lock_and_no_half(
    make_settings: MakeSettings, database: Path
) -> None:
    async def scenario() -> None:
        async with Database(make_settings()) as app_database:
            app = SimpleNamespace(state=SimpleNamespace(database=app_database))
            request = HTTPConnection({"type": "http", "method": "POST", "app": app})

            async def write(count: int) -> None:
                async with asynccontextmanager(get_session)(request) as session:
                    for number in range(count):
                        name = f"test:{number}"
                        session.add(Permission(name=name, description=""))
                        await session.flush()

            for moment in range(40):
                writing = asyncio.create_task(write(2))
                await asyncio.sleep(moment / 10_000)
                writing.cancel()
                await asyncio.wait([writing])
                async with app_database.writers.begin() as session:
                    found = await session.execute(
                        text("DELETE FROM permissions WHERE name LIKE 'test:%' RETURNING name")
                    )
                    assert len(found.all()) in {0, 2}
            await write(1)

    asyncio.run(scenario())


def test_deleting_a_user_deletes_their_permissions(make_settings: MakeSettings) -> None:
    async def scenario() -> tuple[list[str], int | None]:
        async with Database(make_settings()) as database:
            async with database.writers.begin() as session:
                permission = Permission(name="test:made", description="See tests")
                session.add(User(**ADA, permissions=[permission]))
            async with database.writers.begin() as session:
                everyone = select(User).options(selectinload(User.permissions))
                ada = (await session.scalars(everyone)).one()
                held = [permission.name for permission in ada.permissions]
                await session.delete(ada)
            async with database.readers() as session:
                left = await session.scalar(text("SELECT count(*) FROM user_permissions"))
        return held, left

    assert asyncio.run(scenario()) == (["test:made"], 0)


def test_i8_a_username_is_taken_only_once(make_settings: MakeSettings) -> None:
    async def scenario() -> None:
        async with Database(make_settings()) as database, database.writers.begin() as session:
            session.add(User(**ADA, permissions=[]))
            session.add(User(**ADA, permissions=[]))

    with pytest.raises(IntegrityError):
        asyncio.run(scenario())
