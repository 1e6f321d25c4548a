"""An app that can't be imported is named with file and line, and its database is not migrated."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from post_update import import_error, set_up
from tests.support.projects import Generate, Project, clean_environment
from tests.update.edits import commit, git

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


def test_setup_migrates_the_database_of_an_app_that_works_and_says_so(
    shelf: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_setup(shelf) == 0
    assert shelf.has("app.db")
    assert "[setup] Running upgrade  -> " in capfd.readouterr().out


FILL = """
from app.core.seed_data import register_seed_rows
from app.settings import Settings

shelf: int = "oak"


def fill(settings: Settings) -> None:
    register_seed_rows(1, table="shelves", key="name")
    print(settings.shelf)
"""


def test_an_update_that_breaks_types_names_the_lines_and_exits_with_1(
    shelf: Project, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What mypy finds in the last commit, too, is not the update's fault."""
    monkeypatch.setenv("COPIER_FASTAPI_SETUP", "run")
    (shelf.path / "app/fill.py").write_text('shelf: int = "oak"\n')
    git(shelf.path, "init", "--quiet")
    commit(shelf, "Start")
    (shelf.path / "app/fill.py").write_text(FILL)

    assert set_up(shelf.path, []) == 1

    lines = capfd.readouterr().out.splitlines()
    said = [line for line in lines if "app/" in line]
    assert [line.split("  [")[0] for line in said] == [
        '[update]     app/fill.py:9: Missing positional argument "rows" in call to "register_seed_rows"',
        '[update]     app/fill.py:9: Argument 1 to "register_seed_rows" has incompatible type "int"; '
        'expected "MetaData"',
        '[update]     app/fill.py:10: "Settings" has no attribute "shelf"',
    ]
    end = "Fix the errors above, then run the tests."
    assert lines[-1] == f"[update] The database is at the latest migration. {end}"
    (shelf.path / "app/fill.py").unlink()
    assert set_up(shelf.path, []) == 0
    assert capfd.readouterr().out.endswith(" migration. Run the tests, then commit.\n")


@pytest.mark.parametrize("options", [[], ["--deploy"]])
def test_check_imports_the_app(shelf: Project, options: list[str]) -> None:
    assert run_setup(shelf) == 0
    production = {"ENVIRONMENT": "production", "ALLOWED_HOSTS": "shelf.example.com"}
    assert "ok" in shelf.succeed("app", "check", *options, **production)
    routers = shelf.path / "app/api/routers.py"
    routers.write_text(f"from app.errors import Missing\n{routers.read_text()}")

    checked = shelf.run("app", "check", *options, **production)

    assert checked.returncode == 1
    assert "cannot import the app: ImportError" in checked.stderr


def test_without_an_environment_of_its_own_nothing_is_imported(generate: Generate) -> None:
    assert import_error(generate(auth=False, github=False).path) == ""
