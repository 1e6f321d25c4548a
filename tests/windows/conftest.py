import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects import Generate, Project
from tests.wine import Wine, make_wine

# What breaks careless scripts: spaces, parentheses, the sign that joins commands, no ASCII.
FOLDER = "My Projects (x) & ü"


@pytest.fixture(scope="session")
def wine(generate: Generate) -> Iterator[Wine]:
    wine = make_wine(generate())
    yield wine
    wine.stop()


@pytest.fixture
def shelf(generate: Generate, tmp_path: Path) -> Path:
    """A project that was just rendered."""
    return Path(shutil.copytree(generate().path, tmp_path / FOLDER / "my_new_app"))


@pytest.fixture(scope="module")
def ready(
    wine: Wine, generate: Generate, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, str]:
    """A project that setup.bat has set up, and what it said."""
    folder = tmp_path_factory.mktemp("windows") / FOLDER / "my_new_app"
    shutil.copytree(generate().path, folder)
    code, said = wine.set_up(folder)
    assert code == 0, said
    return Project(folder, {}), said
