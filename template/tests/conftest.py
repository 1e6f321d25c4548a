"""Every test has a database file of its own, made by the real migrations."""

import argparse
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings

MakeSettings = Callable[..., Settings]


def alembic_config(database: Path) -> Config:
    """As `alembic -x url=...` on the command line."""
    options = argparse.Namespace(x=[f"url=sqlite:///{database}"])
    return Config("alembic.ini", cmd_opts=options)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    database = tmp_path_factory.mktemp("database") / "migrated.db"
    command.upgrade(alembic_config(database), "head")
    return database


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(migrated, tmp_path / "test.db"))


@pytest.fixture
def make_settings(database: Path) -> MakeSettings:
    """Settings for a test: of development, unless it says otherwise."""

    def make(**changes: object) -> Settings:
        values: dict[str, object] = {
            "environment": "development",
            "database_url": f"sqlite+aiosqlite:///{database}",
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
