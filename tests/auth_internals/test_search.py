"""The search of users, with its index and without."""

import asyncio
from collections.abc import Callable

import pytest
from alembic import command
from alembic.migration import MigrationContext
from alembic.operations import Operations
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import Engine, Select, create_engine, select

from app.core.database import Database, synchronous_url
from app.core.errors import Invalid
from app.core.pagination import PageParams, _Cursor, get_page_params
from app.core.search import search as search_page
from app.models.user import User
from tests.auth_internals.helpers import USERS, MakeUser, Statements, execute
from tests.conftest import alembic_config

BEFORE_THE_INDEX = "c3f07a5e9b21"
NAMES = ("a_b", "axb", "bob", "bobby", "abo", "bo-b")
PARTS = (
    *("a", "b", "bo", "ob", "bob", "BOB", "bob@", "bb", "obb", "by@e", "_", "a_", "a_b", "_b@"),
    *(
        "%",
        "\\",
        "*",
        '"',
        "''",
        "a%b",
        "a*b",
        'a"b',
        "a OR b",
        "bob NOT x",
        "^bob",
        "(bob)",
        "{x}",
    ),
    *("text:bob", "bob exam", "x@", "@", "@ex", "example.com", "com", "üb", "übe", "m\U0001f600x"),
)

Search = Callable[..., list[str]]


class Filters(BaseModel):
    order: str
    q: str = "is not a column"
    is_active: bool | None = None


@pytest.fixture
def search(client: TestClient, admin: dict[str, str], make_user: MakeUser) -> Search:
    """The usernames that a search finds, from all pages. Some users exist."""
    for name in NAMES:
        make_user(name)

    def find(q: str, limit: int = 2) -> list[str]:
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            params: dict[str, str | int] = {"q": q, "limit": limit, **cursor}
            response = client.get(USERS, params=params, headers=admin)
            assert response.status_code == 200, response.text
            found += [user["username"] for user in response.json()["items"]]
            if response.json()["next"] is None:
                return found
            cursor = {"cursor": response.json()["next"]}

    return find


def by_reading_all(rows: Engine, q: str) -> list[str]:
    """What a search is to find."""
    q = q.lower()
    names = execute(rows, "SELECT username, email FROM users ORDER BY id")

    def is_found(name: str) -> bool:
        return q in name if len(q) > 2 else name.startswith(q)

    return [str(pair[0]) for pair in names if any(is_found(str(name)) for name in pair)]


@pytest.mark.parametrize("with_index", [True, False])
def test_i7_a_search_finds_parts_and_short_starts_and_knows_no_wildcards(
    search: Search, rows: Engine, database_url: str, with_index: bool
) -> None:
    if not with_index:
        command.downgrade(alembic_config(database_url), BEFORE_THE_INDEX)

    for part in PARTS:
        assert search(part) == by_reading_all(rows, part), part
    assert search("bob") == ["bob", "bobby"]
    assert search("bo") == ["bob", "bobby", "bo-b"]


def test_a_search_follows_every_change_of_a_user(
    client: TestClient, search: Search, rows: Engine, admin: dict[str, str], make_user: MakeUser
) -> None:
    user_id = make_user("carol")
    path = f"{USERS}/{user_id}"

    assert client.patch(path, json={"username": "dave"}, headers=admin).status_code == 200
    assert [search("carol"), search("dave")] == [["dave"], ["dave"]]
    new_email = {"email": "dave@example.com"}
    assert client.patch(path, json=new_email, headers=admin).status_code == 200
    assert [search("carol"), search("dave"), search("da")] == [[], ["dave"], ["dave"]]
    refused = client.patch(path, json={"username": "bob"}, headers=admin)
    assert (refused.status_code, search("dave")) == (409, ["dave"])
    assert client.delete(path, headers=admin).status_code == 204
    assert search("dave") == []
    execute(rows, "UPDATE users SET username = 'erin' WHERE username = 'bobby'")
    execute(rows, "DELETE FROM users WHERE username = 'axb'")
    for part in PARTS:
        assert search(part) == by_reading_all(rows, part), part


def test_a_search_on_sqlite_reads_no_table_from_end_to_end(
    search: Search, rows: Engine, sent: Statements
) -> None:
    if rows.dialect.name != "sqlite":
        pytest.skip("PostgreSQL plans by the number of rows")
    assert search("b@e", limit=50) == ["a_b", "axb", "bob", "bo-b"]

    plans = []
    with rows.connect() as connection:
        for statement, parameters in [query for query in sent if "FROM users" in query[0]]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans += [str(row[-1]) for row in plan]
    assert any(step.startswith("SCAN users_search VIRTUAL TABLE INDEX") for step in plans)
    scans = [
        step for step in plans if step.startswith(("SCAN", "USE TEMP")) and "VIRTUAL" not in step
    ]
    assert scans == []


def test_a_batch_on_users_keeps_the_index_of_the_search(
    search: Search, rows: Engine, database_url: str
) -> None:
    if rows.dialect.name != "sqlite":
        pytest.skip("PostgreSQL replaces no table")
    command.downgrade(alembic_config(database_url), "-1")
    command.upgrade(alembic_config(database_url), "head")
    engine = create_engine(synchronous_url(database_url))
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("users", recreate="always") as batch:
            batch.alter_column("username", new_column_name="nickname")
        with operations.batch_alter_table("users", recreate="always") as batch:
            batch.alter_column("nickname", new_column_name="username")
    engine.dispose()

    execute(rows, "UPDATE users SET username = 'erin' WHERE username = 'bobby'")

    assert [search("erin"), search("bob")] == [["erin"], ["bob", "erin"]]


def test_a_project_without_an_index_is_told_so_and_searches_as_before(
    search: Search, database_url: str, rows: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    if rows.dialect.name != "sqlite":
        pytest.skip("the tests of PostgreSQL have a server without rights")
    command.downgrade(alembic_config(database_url), BEFORE_THE_INDEX)
    execute(rows, "CREATE TABLE users_search (own INTEGER)")

    command.upgrade(alembic_config(database_url), "head")

    assert "The search of users has no index and reads all rows" in caplog.text
    assert search("bob") == ["bob", "bobby"]


def test_a_search_with_another_filter_or_a_join_loses_no_rows(
    app: FastAPI, rows: Engine, make_user: MakeUser
) -> None:
    for number in range(9):
        make_user(f"bob-{number}", *(["users:read"] if number > 6 else []))
    execute(rows, "UPDATE users SET is_active = false WHERE username < 'bob-7'")
    everyone, holders = select(User), select(User).join(User.permissions)

    async def find(statement: Select[User], filters: BaseModel | None = None) -> list[str]:
        found, params = [], PageParams(1, 0)
        async with Database(app.state.settings) as database, database.readers() as session:
            while True:
                columns = [User.username, User.email]
                page = await search_page(session, statement, columns, "bob", params, filters)
                found += [user.username for user in page.items]
                if page.next is None:
                    return found
                params = await get_page_params(1, TypeAdapter(_Cursor).validate_python(page.next))

    assert asyncio.run(find(everyone.where(User.is_active))) == ["bob-7", "bob-8"]
    assert asyncio.run(find(holders)) == ["bob-7", "bob-8"]
    assert len(asyncio.run(find(everyone))) == 9
    active = Filters(order="-id", is_active=True)
    assert asyncio.run(find(everyone, active)) == ["bob-8", "bob-7"]
    with pytest.raises(Invalid):
        asyncio.run(find(everyone, Filters(order="username")))
