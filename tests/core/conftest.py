import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.conftest import SERVER, MakeSettings, create_database, run_on
from tests.core.revisions import Revisions
from tests.core.routes import (
    add_database_routes,
    add_failing_routes,
    add_text_routes,
    with_routes_of,
)


@pytest.fixture(scope="session")
def shared_app(shared_app: FastAPI) -> FastAPI:
    """The app, with routes that fail, routes that write and routes that read text."""
    app = with_routes_of(shared_app, shared_app.state.settings)
    add_failing_routes(app)
    add_database_routes(app)
    add_text_routes(app)
    return app


@pytest.fixture
def app(shared_app: FastAPI, make_settings: MakeSettings) -> FastAPI:
    """A new app with the same routes, to which a test may add."""
    return with_routes_of(shared_app, make_settings())


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


@pytest.fixture
def closed_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which this user may not enter."""
    if os.name == "nt":
        pytest.skip("Windows has other permissions")
    is_root = os.getuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        monkeypatch.chdir(folder)
        folder.chmod(0)
        if is_root:
            # Root may enter every folder.
            os.setresuid(65534, 65534, 0)
        yield folder
        if is_root:
            os.setresuid(0, 0, 0)
        folder.chmod(0o700)
        monkeypatch.undo()
