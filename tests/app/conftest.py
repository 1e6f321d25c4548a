import shutil
from pathlib import Path

import pytest

from tests.conftest import Migrated
from tests.support.projects import Generate

# Routes for tests: a counter that is read and then written, and rows that come in pairs.
PROBE = """
from sqlalchemy import func, select

from app.api.deps import SessionDep
from app.main import create_app
from app.models.user import Permission

app = create_app()


@app.post("/counter")
async def count(session: SessionDep) -> int:
    counter = await session.get_one(Permission, 1, with_for_update=True)
    counter.description = str(int(counter.description) + 1)
    return int(counter.description)


@app.post("/pairs/{number}")
async def write_pair(number: int, session: SessionDep) -> int:
    session.add(Permission(name=f"first {number}", description=""))
    await session.flush()
    session.add(Permission(name=f"second {number}", description=""))
    return number


@app.get("/rows")
async def count_rows(session: SessionDep) -> int:
    return await session.scalar(select(func.count()).select_from(Permission)) or 0
"""


@pytest.fixture
def probed(generate: Generate, migrated_once: Migrated, tmp_path: Path) -> Path:
    """A migrated project with `probe:app`, the app with unprotected routes for these tests."""
    folder = tmp_path / "project"
    shutil.copytree(migrated_once(generate(auth=False)), folder)
    (folder / "probe.py").write_text(PROBE)
    return folder
