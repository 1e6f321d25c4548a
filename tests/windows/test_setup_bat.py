"""setup.bat in Wine's cmd with a real Windows CPython: success, a second run, every failure."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from tests.support.projects import Project
from tests.support.wine import Wine, windows_path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.wine,
    pytest.mark.skipif(os.name == "nt", reason="on Windows, the CI workflow runs setup.bat"),
]

Ready = tuple[Project, str]


@contextmanager
def away(file: Path) -> Iterator[None]:
    """Hide a file for a while."""
    aside = file.with_name(f"{file.name}.away")
    file.rename(aside)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        aside.rename(file)


def test_create_project_takes_every_step_and_says_what_comes_next(ready: Ready) -> None:
    project, said = ready

    steps = [line for line in said.splitlines() if line.startswith("[setup]")]
    assert [step[:11] for step in steps if "/4" in step] == [f"[setup] {n}/4" for n in range(1, 5)]
    assert ".venv\\Scripts\\uvicorn app.main:app --reload --reload-dir app --port 8001" in said
    assert "Press any key" not in said
    assert (project.path / ".env").read_bytes() == (project.path / ".env.example").read_bytes()
    assert (project.path / ".venv/Scripts/uvicorn.exe").exists()
    assert project.has("app.db")
    assert not project.has(".env.new")


def test_a_second_run_from_another_folder_keeps_everything_and_needs_no_network(
    wine: Wine, ready: Ready, tmp_path: Path
) -> None:
    project, _ = ready
    # A server that a test has ended may have left its log, which the next process copies back.
    with closing(sqlite3.connect(project.path / "app.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = (project.path / "app.db").read_bytes()
    (project.path / ".env").write_bytes(b"ENVIRONMENT=development\r\n# mine\r\n")
    (tmp_path / "driver.bat").write_bytes(b'@call "%SCRIPT%"\r\n')
    script = f"{windows_path(project.path)}\\setup.bat"

    code, said = wine.run(tmp_path, "cmd", "/c", "driver.bat", SCRIPT=script, PIP_FIND_LINKS="")

    assert code == 0, said
    assert "[setup] Done in " in said
    assert "Collecting" not in said
    assert (project.path / ".env").read_bytes().endswith(b"# mine\r\n")
    assert (project.path / "app.db").read_bytes() == before


def test_without_python_it_says_where_to_get_one(wine: Wine, shelf: Path, tmp_path: Path) -> None:
    code, said = wine.run(shelf, "cmd", "/c", "setup.bat", path=(tmp_path,))

    assert code == 10
    assert "Get it from https://www.python.org/downloads/" in said
    assert not (shelf / ".venv").exists()


def test_the_alias_that_opens_the_store_is_no_python(
    wine: Wine, shelf: Path, tmp_path: Path
) -> None:
    alias = "import sys; print('Python was not found'); sys.exit(9009)"
    folder = wine.stand_in(tmp_path / "alias/python.exe", alias)

    code, said = wine.run(shelf, "cmd", "/c", "setup.bat", path=(folder,))

    assert code == 10
    assert "Python 3.11 or newer was not found" in said


def test_an_old_python_is_named(wine: Wine, shelf: Path, tmp_path: Path) -> None:
    old = "import sys; '--version' in sys.argv and sys.exit(print('Python 3.10.1')); sys.exit(1)"
    folder = wine.stand_in(tmp_path / "old/python.exe", old)

    code, said = wine.set_up(shelf, path=(folder,))

    assert code == 11
    assert "Python 3.11 or newer is required. This is:" in said
    assert "Python 3.10.1" in said


def test_the_launcher_comes_first_and_an_old_one_is_passed_over(
    wine: Wine, shelf: Path, tmp_path: Path
) -> None:
    """The Python that it starts fails to create the environment, which is the next error."""
    launcher = (
        "import sys; print('py', sys.argv[1:]); assert sys.argv[1] == '-3';"
        "sys.exit(5 if 'venv' in sys.argv else {})"
    )
    new = wine.stand_in(tmp_path / "new/py.exe", launcher.format(0))
    old = wine.stand_in(tmp_path / "old/py.exe", launcher.format("'--version' not in sys.argv"))
    python = wine.stand_in(
        tmp_path / "python/python.exe",
        launcher.format(0).replace("assert sys.argv[1] == '-3';", ""),
    )

    code, said = wine.set_up(shelf, path=(new, wine.python))
    assert code == 12
    assert "could not create .venv" in said
    assert "py ['-3', '-m', 'venv', '--clear', '.venv']" in said
    code, said = wine.set_up(shelf, path=(old, python))
    assert "py ['-3', '-m'" not in said
    assert "py ['-m', 'venv', '--clear', '.venv']" in said


def test_a_python_that_is_a_batch_file_comes_back(wine: Wine, shelf: Path, tmp_path: Path) -> None:
    """pyenv for Windows has one. Without `call`, it would end setup with exit code 0."""
    (tmp_path / "python.bat").write_bytes(b"@echo shim %*\r\n@exit /b 0\r\n")

    code, said = wine.run(shelf, "cmd", "/c", "setup.bat", path=(tmp_path,))

    assert code != 0
    assert "shim -m venv --clear .venv" in said or "[setup] ERROR" in said


def test_uv_is_used_where_it_is_there(wine: Wine, shelf: Path, tmp_path: Path) -> None:
    """A stand-in records its arguments: uv exists for Windows, but not in this environment."""
    uv = (
        "import subprocess, sys; print('uv', sys.argv[1:], flush=True);"
        "'pip' in sys.argv and sys.exit(3);"
        "subprocess.run([sys.executable, '-m', 'venv', '--without-pip', '.venv'], check=True)"
    )
    folder = wine.stand_in(tmp_path / "uv/uv.exe", uv)

    code, said = wine.set_up(shelf, path=(folder,))

    assert code == 14
    assert "uv ['venv', '--quiet', '--clear', '--seed', '--python', '>=3.11', '.venv']" in said
    assert "'--constraint', 'constraints.txt', '--editable', '.[dev]']" in said


def test_dependencies_that_cannot_be_fetched_are_told_and_the_next_run_goes_on(
    wine: Wine, ready: Ready
) -> None:
    project, _ = ready
    stamp = project.path / ".venv/installed.txt"
    with away(stamp):
        code, said = wine.set_up(project.path, PIP_FIND_LINKS="Z:\\nowhere")

        assert code == 14
        assert "If you were offline, connect and run setup.bat again" in said
        assert not stamp.exists()


def test_settings_that_cannot_be_written_are_told(wine: Wine, ready: Ready) -> None:
    project, _ = ready
    with away(project.path / ".env"), away(project.path / ".env.example"):
        code, said = wine.set_up(project.path)

    assert code == 15
    assert "could not write .env" in said


def test_a_migration_that_fails_stops_it_with_its_reason(wine: Wine, ready: Ready) -> None:
    project, _ = ready
    newest = ScriptDirectory(str(project.path / "alembic")).get_current_head()
    broken = project.path / "alembic/versions/broken.py"
    broken.write_text(
        f'revision = "broken"\ndown_revision = "{newest}"\n\n\n'
        'def upgrade() -> None:\n    raise RuntimeError("boom")\n'
    )
    try:
        code, said = wine.set_up(project.path)
    finally:
        broken.unlink()

    assert code == 16
    assert "boom" in said
    assert "could not migrate the database (see above)" in said
    assert "Done." not in said


def test_a_copy_of_the_script_alone_says_that_it_is_not_in_its_project(
    wine: Wine, shelf: Path, tmp_path: Path
) -> None:
    shutil.copy(shelf / "setup.bat", tmp_path)

    code, said = wine.set_up(tmp_path)

    assert code == 1
    assert "setup.bat is not in a project folder" in said
