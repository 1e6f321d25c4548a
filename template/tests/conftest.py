"""What the tests share: settings, a migrated database and a client for each test.

The databases are SQLite files. If TEST_DATABASE_URL names a PostgreSQL server, they are created
there instead.
"""

import argparse
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Enum,
    Table,
    create_engine,
    insert,
    make_url,
    text,
)

from app.core.database import synchronous_url
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


@pytest.fixture
def rows(database_url: str) -> Iterator[Engine]:
    """Reads and changes the database without the app."""
    engine = create_engine(synchronous_url(database_url))
    yield engine
    engine.dispose()


def insert_row(connection: Connection, table: Table, **values: object) -> int:
    """Insert a row. Columns of yours that need a value get one that fits their type."""
    for column in table.columns:
        is_optional = column.nullable or column.primary_key
        has_default = column.default is not None or column.server_default is not None
        if column.key not in values and not is_optional and not has_default:
            values[column.key] = _sample(connection, column)
    key = connection.execute(insert(table).values(values)).inserted_primary_key
    return int(key[0]) if key else 0


def _sample(connection: Connection, column: Column[Any]) -> object:
    for foreign_key in column.foreign_keys:
        return insert_row(connection, foreign_key.column.table)
    kind = getattr(column.type, "impl_instance", column.type)
    if isinstance(kind, Enum):
        return next(iter(kind.enum_class or kind.enums))
    # Random, since the column may be unique.
    random = uuid4()
    samples: dict[type, object] = {
        str: random.hex[: getattr(kind, "length", None)],
        int: random.int % 2**15,
        bool: False,
        float: 0.5,
        Decimal: Decimal(1),
        bytes: random.bytes,
        UUID: random,
        datetime: datetime.now(UTC),
        date: datetime.now(UTC).date(),
        time: time(12),
        timedelta: timedelta(days=1),
    }
    return samples.get(kind.python_type, {})
