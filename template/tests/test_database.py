import asyncio
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import selectinload

from app.api.deps import SessionDep
from app.api.pagination import Page, PagingDep, Slice
from app.db.backup import BackupError, back_up, restore, verify
from app.db.revision import VERSIONS, MigrationState, code_revisions
from app.db.session import Database
from app.models.user import Permission, User
from app.schemas.user import PermissionRead, UserCreate
from tests.conftest import MakeSettings, alembic_config

ADA = {"username": "ada", "email": "ada@example.com", "password": "hash"}
INSERT_ADA = """
INSERT INTO users (id, username, email, password, is_active)
VALUES (1, 'ada', 'ada@example.com', 'hash', true)
"""


def test_the_models_and_the_migrations_agree(database_url: str) -> None:
    command.check(alembic_config(database_url))


def test_every_migration_can_be_taken_back_and_applied_again(database_url: str) -> None:
    config = alembic_config(database_url)
    revisions = list(ScriptDirectory.from_config(config).walk_revisions())
    command.downgrade(config, "base")

    for revision in reversed(revisions):
        command.upgrade(config, revision.revision)
        command.downgrade(config, "-1")
        command.upgrade(config, revision.revision)

    command.check(config)


def test_a_database_can_be_stamped_without_its_tables(tmp_path: Path) -> None:
    config = alembic_config(f"sqlite:///{tmp_path / 'empty.db'}")

    command.stamp(config, "head")

    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


def test_the_server_knows_the_head_revision_as_alembic_does() -> None:
    heads = ScriptDirectory.from_config(Config("alembic.ini")).get_heads()

    assert code_revisions(VERSIONS)[1] == frozenset(heads)


def test_merges_dependencies_and_other_files_are_understood(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    (tmp_path / "a.py").write_text('revision = "a"\ndown_revision = None\n')
    (tmp_path / "b.py").write_text('revision: str = "b"\ndown_revision: str | None = "a"\n')
    (tmp_path / "c.py").write_text('revision = "c"\ndown_revision = "a"\n')
    assert code_revisions(tmp_path) == (frozenset("abc"), frozenset("bc"))

    (tmp_path / "d.py").write_text('revision = "d"\ndown_revision = ("b", "c")\n')
    assert code_revisions(tmp_path)[1] == {"d"}

    (tmp_path / "e.py").write_text('revision = "e"\ndown_revision = None\ndepends_on = "d"\n')
    assert code_revisions(tmp_path)[1] == {"e"}


@pytest.mark.parametrize(
    ("database_at", "said"), [("a", "behind"), ("", "behind"), ("z", "ahead"), ("b", "code at b")]
)
def test_a_database_is_behind_ahead_or_right(database_at: str, said: str) -> None:
    revisions = frozenset(filter(None, [database_at]))

    state = MigrationState(frozenset("ab"), frozenset("b"), revisions)

    assert said in str(state)
    assert state.at_head == (database_at == "b")


def test_without_a_backup_nothing_is_migrated(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(INSERT_ADA)
    (database.parent / "backups").write_text("a file in the way")

    with pytest.raises(FileExistsError):
        command.downgrade(alembic_config(f"sqlite:///{database}"), "base")

    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (1,)


def test_a_migration_leaves_a_backup_of_what_was_there(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(INSERT_ADA)

    command.downgrade(alembic_config(f"sqlite:///{database}"), "base")

    (copy,) = (database.parent / "backups").iterdir()
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT username FROM users").fetchall() == [("ada",)]


def test_what_was_broken_before_is_not_the_migrations_fault(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO user_permissions VALUES (98, 99)")

    command.current(alembic_config(f"sqlite:///{database}"))
    command.downgrade(alembic_config(f"sqlite:///{database}"), "base")


def test_a_user_keeps_permissions_and_loses_them_when_deleted(
    make_settings: MakeSettings,
) -> None:
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


def test_a_username_is_taken_once(make_settings: MakeSettings) -> None:
    async def scenario() -> None:
        async with Database(make_settings()) as database, database.writers.begin() as session:
            session.add(User(**ADA, permissions=[]))
            session.add(User(**ADA, permissions=[]))

    with pytest.raises(IntegrityError):
        asyncio.run(scenario())


def test_names_that_look_the_same_are_stored_the_same() -> None:
    user = UserCreate(username=" ＡＤＡ ", email="Ada@Example.COM", password="a long enough one")

    assert (user.username, user.email) == ("ada", "ada@example.com")


def test_i10_writers_that_read_first_lose_no_update(make_settings: MakeSettings) -> None:
    """Two databases, as in two workers: ten tasks each that read a number and write the next."""

    async def add_one(database: Database) -> None:
        async with database.writers.begin() as session:
            # PostgreSQL locks the row that is asked for; SQLite's transaction has the lock already.
            counter = await session.get_one(Permission, 101, with_for_update=True)
            counter.description = str(int(counter.description) + 1)

    async def scenario() -> str:
        async with Database(make_settings()) as one, Database(make_settings()) as another:
            async with one.writers.begin() as session:
                session.add(Permission(id=101, name="counter", description="0"))
            await asyncio.gather(*(add_one(worker) for worker in (one, another) for _ in range(10)))
            async with one.readers() as session:
                counter = await session.get_one(Permission, 101)
        return counter.description

    assert asyncio.run(scenario()) == "20"


def test_a_list_is_read_page_by_page(app: FastAPI) -> None:
    @app.post("/permissions")
    async def create_permissions(session: SessionDep) -> None:
        names = [f"name {number}" for number in range(1, 6)]
        session.add_all(Permission(name=name, description="") for name in names)

    @app.get("/permissions", response_model=Page[PermissionRead])
    async def list_permissions(paging: PagingDep, session: SessionDep) -> Slice[Permission]:
        rows = await session.scalars(paging.of(Permission))
        return paging.slice(rows.all())

    with TestClient(app) as client:
        client.post("/permissions")
        pages = [client.get("/permissions", params={"limit": 3}).json()]
        while cursor := pages[-1]["next"]:
            page = client.get("/permissions", params={"limit": 3, "cursor": cursor}).json()
            pages.append(page)
        forged = [
            client.get("/permissions", params=params).status_code
            for params in ({"cursor": "%00"}, {"cursor": "9" * 99}, {"limit": 101}, {"limit": 0})
        ]

    ids = [item["id"] for page in pages for item in page["items"]]
    assert ids == sorted(set(ids))
    assert len(ids) >= 5
    assert all(len(page["items"]) == 3 for page in pages[:-1])
    assert forged == [422] * 4


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
                await asyncio.sleep(0.2)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                other.execute("ROLLBACK")
                # By now the driver's thread has the lock that it was waiting for.
                await asyncio.sleep(0.3)
                other.execute("PRAGMA busy_timeout = 1000")
                other.execute("BEGIN IMMEDIATE")
                other.execute("ROLLBACK")
            await write()

    asyncio.run(scenario())


def test_a_backup_has_every_row_that_was_there_when_it_began(
    database: Path, tmp_path: Path
) -> None:
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            while not stop.is_set():
                name = f"name {written}"
                connection.execute(
                    "INSERT INTO users (username, email, password, is_active) VALUES (?, ?, '', true)",
                    (name, name),
                )
                written += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            acknowledged = written
            copy = tmp_path / f"{number}.backup"
            back_up(database, copy)
            with closing(sqlite3.connect(copy)) as connection:
                assert (
                    connection.execute("SELECT count(*) FROM users").fetchone()[0] >= acknowledged
                )
    finally:
        stop.set()
        writer.join()


def test_a_backup_overwrites_nothing(database: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")

    with pytest.raises(BackupError, match="exists already"):
        back_up(database, precious)

    assert precious.read_text() == "mine"


def test_a_backup_comes_back_whole(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(INSERT_ADA)
    copy = tmp_path / "copy"
    back_up(database, copy)
    database.unlink()

    restore(copy, database)

    verify(database)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT username FROM users").fetchall() == [("ada",)]


def test_a_database_in_use_or_with_rows_is_not_replaced(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    back_up(database, copy)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("SELECT * FROM users").fetchall()
        with pytest.raises(BackupError, match="in use"):
            restore(copy, database)
        connection.execute(INSERT_ADA)
        connection.commit()

    with pytest.raises(BackupError, match="has rows"):
        restore(copy, database)


def test_the_log_of_a_database_that_was_moved_away_is_kept(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    back_up(database, copy)
    database.unlink()
    log = database.with_name(f"{database.name}-wal")
    log.write_text("rows of the other database")

    with pytest.raises(BackupError, match="move it to its file"):
        restore(copy, database)

    assert log.read_text() == "rows of the other database"


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps an open file where it is")
def test_two_workers_refuse_a_file_that_was_replaced(
    make_settings: MakeSettings, database: Path, tmp_path: Path
) -> None:
    """Whether a worker has read or written before: neither may touch the new file."""
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


def test_a_damaged_backup_is_not_restored(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    back_up(database, copy)
    content = bytearray(copy.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    copy.write_bytes(content)
    before = database.read_bytes()

    with pytest.raises(BackupError):
        restore(copy, database)

    assert database.read_bytes() == before
