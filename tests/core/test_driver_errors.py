"""What a database driver says about an error, which may quote whole rows."""

import asyncio
import sqlite3
import traceback
from contextlib import closing
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from app.api.deps import SessionDep
from app.core.database import Database, is_transient_error, synchronous_url
from app.main import create_app
from tests.conftest import SERVER, MakeSettings

SECRET = "$argon2id$v=19$m=8,t=1,p=1$never-in-a-log"
INSERT = "INSERT INTO users (id, username, email, password, is_active) VALUES"

# The database rejects the last statement of each list.
REJECTED = {
    "NOT NULL": [f"{INSERT} (1, NULL, 'ada', :secret, true)"],
    "too long": [f"{INSERT} (1, '{'x' * 33}', 'ada', :secret, true)"],
    "CHECK": [
        "CREATE TABLE checked (secret TEXT, number INTEGER CHECK (number > 0))",
        "INSERT INTO checked VALUES (:secret, 0)",
    ],
    "UNIQUE": [f"{INSERT} (1, 'ada', 'a', :secret, true), (2, 'bob', 'a', :secret, true)"],
    "UNIQUE, with the value": [
        f"{INSERT} (1, 'ada', :secret, '', true), (2, 'bob', :secret, '', true)"
    ],
    "UNIQUE INDEX": [
        "CREATE TABLE copies (secret TEXT)",
        "INSERT INTO copies VALUES (:secret), (:secret)",
        "CREATE UNIQUE INDEX one ON copies (secret)",
    ],
    "FOREIGN KEY": [
        "CREATE TABLE parents (name VARCHAR(99) PRIMARY KEY)",
        "CREATE TABLE children (name VARCHAR(99) REFERENCES parents (name))",
        "INSERT INTO children VALUES (:secret)",
    ],
    "FOREIGN KEY, at the commit": [
        "CREATE TABLE parents (name VARCHAR(99) PRIMARY KEY)",
        "CREATE TABLE children (name VARCHAR(99) REFERENCES parents (name) "
        "DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO children VALUES (:secret)",
    ],
    "not JSON": ["SELECT json(:secret)" if not SERVER else "SELECT CAST(:secret AS JSON)"],
    "no number": ["SELECT abs(-9223372036854775807 - 1), :secret"]
    if not SERVER
    else ["SELECT CAST(CAST(:secret AS TEXT) AS INTEGER)"],
}

if not SERVER:
    REJECTED["no UTF-8"] = [
        "CREATE TABLE texts (secret TEXT)",
        "INSERT INTO texts VALUES (CAST(CAST(:secret AS BLOB) || x'ff' AS TEXT))",
        "SELECT secret FROM texts",
    ]

each_rejected = pytest.mark.parametrize("statements", REJECTED.values(), ids=REJECTED.keys())


def everything_about(error: DBAPIError) -> str:
    return "".join(traceback.format_exception(error)) + f"{error} {error!r} {error.orig!r}"


@each_rejected
def test_x3_no_value_of_a_row_is_in_the_text_of_a_database_error(
    make_settings: MakeSettings, statements: list[str]
) -> None:
    async def fail() -> None:
        async with Database(make_settings()) as database, database.writers.begin() as session:
            for statement in statements:
                result = await session.execute(text(statement), {"secret": SECRET})
                if result.returns_rows:
                    result.all()

    with pytest.raises(DBAPIError) as of_app:
        asyncio.run(fail())
    assert SECRET not in everything_about(of_app.value)
    # The text still says what is wrong.
    assert len(str(of_app.value.orig)) > 5


@each_rejected
def test_x3_no_value_of_a_row_is_in_the_text_of_an_error_of_another_engine(
    database_url: str, statements: list[str]
) -> None:
    """Such as those of migrations and of `copy-to`."""
    engine = create_engine(synchronous_url(database_url), hide_parameters=True)

    def fail() -> None:
        with engine.begin() as connection:
            if not SERVER:
                connection.execute(text("PRAGMA foreign_keys = ON"))
            for statement in statements:
                result = connection.execute(text(statement), {"secret": SECRET})
                if result.returns_rows:
                    result.all()

    with pytest.raises(DBAPIError) as rejected:
        fail()
    engine.dispose()

    assert SECRET not in everything_about(rejected.value)


@each_rejected
def test_x3_x1_the_log_of_a_rejected_row_has_none_of_its_values(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture, statements: list[str]
) -> None:
    caplog.set_level("DEBUG", "app")
    app: FastAPI = create_app(make_settings())

    @app.post("/rejected")
    async def write(session: SessionDep) -> None:
        for statement in statements:
            await session.execute(text(statement), {"secret": SECRET})

    with TestClient(app) as client:
        response = client.post("/rejected")

    assert response.status_code in {409, 500, 503}
    assert SECRET not in caplog.text
    assert SECRET not in response.text


def test_a_read_that_is_too_old_to_write_may_succeed_later(database: Path) -> None:
    """SQLite has an extended code for that."""
    with (
        closing(sqlite3.connect(database, isolation_level=None)) as reader,
        closing(sqlite3.connect(database, isolation_level=None)) as writer,
    ):
        reader.execute("PRAGMA journal_mode = WAL")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM permissions").fetchall()
        writer.execute("DELETE FROM permissions")
        with pytest.raises(sqlite3.OperationalError) as rejected:
            reader.execute("DELETE FROM permissions")

    assert rejected.value.sqlite_errorcode == sqlite3.SQLITE_BUSY_SNAPSHOT
    error = OperationalError("", {}, rejected.value)
    assert is_transient_error(error, read_only=False)
