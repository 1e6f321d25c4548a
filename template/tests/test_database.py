import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import selectinload

from app.api.deps import SessionDep
from app.api.pagination import Page, PagingDep, Slice
from app.db.session import Database
from app.models.user import Permission, User
from app.schemas.user import PermissionRead, UserCreate
from tests.conftest import MakeSettings, alembic_config

ADA = {"username": "ada", "email": "ada@example.com", "password": "hash"}


def schema(database: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(database)) as connection, connection:
        return connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


def test_the_models_and_the_migrations_agree(database: Path) -> None:
    command.check(alembic_config(database))


def test_every_migration_can_be_taken_back_and_applied_again(database: Path) -> None:
    before = schema(database)

    command.downgrade(alembic_config(database), "base")
    command.upgrade(alembic_config(database), "head")

    assert schema(database) == before


def test_a_user_keeps_permissions_and_loses_them_when_deleted(
    make_settings: MakeSettings,
) -> None:
    async def scenario() -> tuple[list[str], int | None]:
        database = Database(make_settings())
        async with database.writers.begin() as session:
            permission = Permission(name="users:read", description="See users")
            session.add(User(**ADA, permissions=[permission]))
        async with database.writers.begin() as session:
            everyone = select(User).options(selectinload(User.permissions))
            ada = (await session.scalars(everyone)).one()
            held = [permission.name for permission in ada.permissions]
            await session.delete(ada)
        async with database.readers() as session:
            left = await session.scalar(text("SELECT count(*) FROM user_permissions"))
        await database.dispose()
        return held, left

    assert asyncio.run(scenario()) == (["users:read"], 0)


def test_a_username_is_taken_once(make_settings: MakeSettings) -> None:
    async def scenario() -> None:
        database = Database(make_settings())
        try:
            async with database.writers.begin() as session:
                session.add(User(**ADA, permissions=[]))
                session.add(User(**ADA, permissions=[]))
        finally:
            await database.dispose()

    with pytest.raises(IntegrityError):
        asyncio.run(scenario())


def test_names_that_look_the_same_are_stored_the_same() -> None:
    user = UserCreate(username=" ＡＤＡ ", email="Ada@Example.COM", password="a long enough one")

    assert (user.username, user.email) == ("ada", "ada@example.com")


def test_writers_that_read_first_lose_no_update(make_settings: MakeSettings) -> None:
    """Two databases, as in two workers: ten tasks each that read a number and write the next."""

    async def add_one(database: Database) -> None:
        async with database.writers.begin() as session:
            count = await session.scalar(select(func.count()).select_from(Permission))
            session.add(Permission(name=f"number {count}", description=""))

    async def scenario() -> int | None:
        workers = [Database(make_settings()), Database(make_settings())]
        await asyncio.gather(*(add_one(worker) for worker in workers for _ in range(10)))
        async with workers[0].readers() as session:
            total = await session.scalar(select(func.count()).select_from(Permission))
        for worker in workers:
            await worker.dispose()
        return total

    assert asyncio.run(scenario()) == 20


def test_a_list_is_read_page_by_page(app: FastAPI, database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        rows = [(number, f"name {number}", "") for number in range(1, 6)]
        connection.executemany("INSERT INTO permissions VALUES (?, ?, ?)", rows)

    @app.get("/permissions", response_model=Page[PermissionRead])
    async def list_permissions(paging: PagingDep, session: SessionDep) -> Slice[Permission]:
        rows = await session.scalars(paging.of(select(Permission), Permission.id))
        return paging.slice(rows.all())

    with TestClient(app) as client:
        first = client.get("/permissions", params={"limit": 3}).json()
        last = client.get("/permissions", params={"limit": 3, "cursor": first["next"]}).json()
        forged = client.get("/permissions", params={"cursor": "%00"})

    assert [item["id"] for item in first["items"]] == [1, 2, 3]
    assert [item["id"] for item in last["items"]] == [4, 5]
    assert last["next"] is None
    assert forged.status_code == 422
