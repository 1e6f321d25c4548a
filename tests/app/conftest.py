import shutil
from pathlib import Path

import pytest

from tests.machines import Machine, base_python
from tests.projects import Generate, Project

# Routes for the proofs: a counter that is read and then written, and rows that come in pairs.
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
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home", {"python3": base_python()})


@pytest.fixture
def probed(generate: Generate, tmp_path: Path) -> Path:
    """A migrated project with `probe:app`, the app with routes for proofs, open to all."""
    folder = tmp_path / "project"
    shutil.copytree(generate(auth=False).path, folder)
    (folder / "probe.py").write_text(PROBE)
    Project(folder, {}).succeed("alembic", "upgrade", "head")
    return folder
