import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.projects import Generate, Project
from tests.windows.git_stand_in import git_for
from tests.wine import HungError, Wine, make_wine, windows_path

# What breaks careless scripts: spaces, parentheses, the sign that joins commands, no ASCII.
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
    """A project that was just rendered."""
    return Path(shutil.copytree(generate().path, tmp_path / FOLDER / "my_new_app"))


@pytest.fixture(scope="session")
def ready(
    run_with_git: Run, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, str]:
    """A project that create_project.py has made and set up, and what was said."""
    script = windows_path(template / "create_project.py")

    def create() -> tuple[Project, str]:
        folder = tmp_path_factory.mktemp("windows") / FOLDER
        folder.mkdir()
        code, said = run_with_git(folder, "python", script, "my_new_app")
        assert code == 0, said
        return Project(folder / "my_new_app", {}), said

    try:
        return create()
    except HungError as hung:
        # Seen once in three runs; what hangs by its own fault hangs twice.
        print(f"Once more, since Wine hung: {hung}")
        return create()
