"""What the tests share: settings, a migrated database and a client for each test.

The databases are SQLite files. If TEST_DATABASE_URL names a PostgreSQL server, they are created
there instead.
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

ROOT = Path(__file__).parents[1]
SERVER = os.environ.get("TEST_DATABASE_URL")

MakeSettings = Callable[..., Settings]

# The settings of this machine must not change what the tests find: neither those in its
# environment, nor those in .env. Importing app.main reads them for the first time.
for variable in [*os.environ]:
    if variable.lower() in Settings.model_fields:
        del os.environ[variable]
Settings.model_config["env_file"] = None
# Does a setting of yours have no default? Then give it a value here: os.environ["SHELF"] = "oak"

from app.main import create_app  # noqa: E402


def alembic_config(url: str) -> Config:
    """As `alembic -x url=...` on the command line, but from any folder."""
    config = Config(ROOT / "alembic.ini", cmd_opts=argparse.Namespace(x=[f"url={url}"]))
    # The file format gives "%" a meaning.
    config.set_main_option("script_location", str(ROOT / "alembic").replace("%", "%%"))
    return config


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


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """A database that the migrations have built. Each test gets a copy, which is faster."""
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
    """The file of this test's database. On PostgreSQL, the test is skipped."""
    if SERVER:
        pytest.skip("PostgreSQL keeps no such file")
    return Path(str(make_url(database_url).database))


@pytest.fixture
def make_settings(database_url: str) -> MakeSettings:
    """Settings for development, with changes: `make_settings(docs=False)`."""

    def make(**changes: object) -> Settings:
        values: dict[str, object] = {
            "environment": "development",
            "database_url": database_url,
            "allowed_hosts": "testserver",
            **changes,
        }
        return Settings.model_validate(values)

    return make


@pytest.fixture(scope="session")
def shared_app() -> FastAPI:
    """Built once: FastAPI prepares every route before it answers the first request."""
    values = {"environment": "development", "allowed_hosts": "testserver"}
    return create_app(Settings.model_validate(values))


@pytest.fixture
def app(make_settings: MakeSettings) -> FastAPI:
    """A new app, for a test that adds routes or changes settings."""
    return create_app(make_settings())


@pytest.fixture
def client(
    request: pytest.FixtureRequest, make_settings: MakeSettings, shared_app: FastAPI
) -> Iterator[TestClient]:
    """Sends requests to the app, without a server. `with` starts the app and stops it."""
    is_new = "app" in request.fixturenames
    app: FastAPI = request.getfixturevalue("app") if is_new else shared_app
    app.state.settings = make_settings()
    with TestClient(app) as client:
        yield client
