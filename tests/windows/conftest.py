import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.projects import Generate, Project
from tests.support.wine import Wine, make_wine, windows_path
from tests.windows.git_stand_in import git_for

# Characters that break careless scripts: spaces, parentheses, an ampersand, a non-ASCII letter.
FOLDER = "My Projects (x) & ü"

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def wine(generate: Generate) -> Iterator[Wine]:
    wine = make_wine(generate())
    yield wine
    wine.stop()


@pytest.fixture(scope="session")
def run_with_git(wine: Wine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("git")
    with git_for(wine, folder) as environment:
        run: Run = wine.run
        yield partial(run, path=(folder, wine.python), **environment)


@pytest.fixture
def shelf(generate: Generate, tmp_path: Path) -> Path:
    """A newly rendered project."""
    return Path(shutil.copytree(generate().path, tmp_path / FOLDER / "my_new_app"))


@pytest.fixture(scope="session")
def ready(
    run_with_git: Run, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, str]:
    """A project that create_project.py created and set up, and its output."""
    script = windows_path(template / "create_project.py")

    def create() -> tuple[Project, str]:
        folder = tmp_path_factory.mktemp("windows") / FOLDER
        folder.mkdir()
        code, said = run_with_git(folder, "python", script, "my_new_app")
        assert code == 0, said
        return Project(folder / "my_new_app", {}), said

    try:
        return create()
    except AssertionError as failure:
        # Wine 8 sometimes hangs, or ends Copier without a word. A real failure would happen twice.
        print(f"Trying again, because of what may be a fault of Wine: {failure}")
        return create()
