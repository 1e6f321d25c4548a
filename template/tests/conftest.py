"""Every test has a database of its own, copied from one that the real migrations made.

SQLite files, unless TEST_DATABASE_URL names a PostgreSQL server on which databases may be created.
"""

import argparse
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import URL, create_engine, make_url, text

from app.settings import Settings

# app.main builds an app as it is imported: not with the settings of whoever runs the tests.
for name in Settings.model_fields:
    os.environ.pop(name.upper(), None)

from app.main import create_app  # noqa: E402

MakeSettings = Callable[..., Settings]

SERVER = os.environ.get("TEST_DATABASE_URL")


def alembic_config(url: str) -> Config:
    """As `alembic -x url=...` on the command line."""
    return Config("alembic.ini", cmd_opts=argparse.Namespace(x=[f"url={url}"]))


def create_database(server: str, template: str = "template1") -> URL:
    url = make_url(server).set(drivername="postgresql+psycopg", database=f"test_{uuid4().hex}")
    run_on(server, f'CREATE DATABASE "{url.database}" TEMPLATE "{template}"')
    return url


def run_on(server: str, statement: str) -> None:
    url = make_url(server).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", None)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    if SERVER:
        url = create_database(SERVER)
    else:
        file = tmp_path_factory.mktemp("database") / "migrated.db"
        url = URL.create("sqlite", database=str(file))
    command.upgrade(alembic_config(url.render_as_string(hide_password=False)), "head")
    yield url
    if SERVER:
        run_on(SERVER, f'DROP DATABASE "{url.database}"')


@pytest.fixture
def database_url(migrated: URL, tmp_path: Path) -> Iterator[str]:
    if SERVER:
        url = create_database(SERVER, str(migrated.database))
        yield url.render_as_string(hide_password=False)
        run_on(SERVER, f'DROP DATABASE "{url.database}" WITH (FORCE)')
    else:
        file = shutil.copy(str(migrated.database), tmp_path / "test.db")
        yield f"sqlite+aiosqlite:///{file}"


@pytest.fixture
def database(database_url: str) -> Path:
    """The file of this test's database."""
    if SERVER:
        pytest.skip("PostgreSQL is no file")
    return Path(str(make_url(database_url).database))


@pytest.fixture
def make_settings(database_url: str) -> MakeSettings:
    """Settings for a test: of development, unless it says otherwise."""

    def make(**changes: object) -> Settings:
        values: dict[str, object] = {
            "environment": "development",
            "database_url": database_url,
            "allowed_hosts": "testserver",
            **changes,
        }
        return Settings.model_validate(values)

    return make


@pytest.fixture
def app(make_settings: MakeSettings) -> FastAPI:
    return create_app(make_settings())


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client
