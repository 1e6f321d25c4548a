"""An app that can't be imported is named with file and line, and its database is not migrated."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from post_update import import_error
from tests.support.projects import Generate, Project, clean_environment

pytestmark = pytest.mark.slow


@pytest.fixture
def shelf(generate: Generate, tmp_path: Path) -> Project:
    """A project whose environment is this one, so that setup installs nothing."""
    folder = tmp_path / "shelf"
    shutil.copytree(generate(auth=False, github=False).path, folder)
    (folder / ".venv/bin").mkdir(parents=True)
    python = folder / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    files = ("pyproject.toml", "constraints.txt")
    texts = [str(folder), *((folder / file).read_text("utf-8") for file in files)]
    (folder / ".venv/installed.txt").write_text("\n".join(texts), "utf-8")
    return Project(folder, {})


def run_setup(project: Project) -> int:
    environment = {**clean_environment(), "PYTHONDONTWRITEBYTECODE": "1"}
    setup = ["sh", "setup.sh"]
    return subprocess.run(setup, cwd=project.path, env=environment, check=False).returncode


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("from app.errors import Missing", "app/api/routers.py:1: ImportError: cannot import name"),
        ("x = 1 / 0", "app/api/routers.py:1: ZeroDivisionError: division by zero"),
        ("x = (", "app/api/routers.py:1: SyntaxError: '(' was never closed"),
    ],
    ids=["import", "error", "syntax"],
)
def test_setup_stops_before_the_database_and_the_update_says_where(
    shelf: Project, line: str, reason: str
) -> None:
    assert import_error(shelf.path) == ""
    routers = shelf.path / "app/api/routers.py"
    routers.write_text(f"{line}\n{routers.read_text()}")

    assert run_setup(shelf) == 17

    assert not shelf.has("app.db")
    assert import_error(shelf.path).startswith(reason)


def test_setup_migrates_the_database_of_an_app_that_works(shelf: Project) -> None:
    assert run_setup(shelf) == 0
    assert shelf.has("app.db")


def test_without_an_environment_of_its_own_nothing_is_imported(generate: Generate) -> None:
    assert import_error(generate(auth=False, github=False).path) == ""
