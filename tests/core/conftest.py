from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.conftest import SERVER, create_database, run_on
from tests.core.revisions import Revisions
from tests.core.routes import add_database_routes, add_failing_routes


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """The app, with routes that fail and routes that write."""
    add_failing_routes(app)
    add_database_routes(app)
    with TestClient(app) as client:
        yield client


@pytest.fixture
def revisions(tmp_path: Path) -> Iterator[Revisions]:
    folder = tmp_path / "alembic"
    if not SERVER:
        yield Revisions(folder, f"sqlite:///{tmp_path / 'revisions.db'}")
        return
    url = create_database(SERVER)
    yield Revisions(folder, url.render_as_string(hide_password=False))
    run_on(SERVER, f'DROP DATABASE "{url.database}" WITH (FORCE)')


@pytest.fixture
def on_sqlite(revisions: Revisions) -> Revisions:
    if SERVER:
        pytest.skip("PostgreSQL alters tables in place")
    return revisions
