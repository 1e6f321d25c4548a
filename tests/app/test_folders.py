"""The project's own folder decides which `.env`, database and migrations are used."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Migrated
from tests.support.projects import Generate, clean_environment

pytestmark = pytest.mark.slow


@pytest.fixture
def shelf(generate: Generate, migrated_once: Migrated, tmp_path: Path) -> Path:
    """A migrated project with one more row, in a folder whose name breaks careless code."""
    folder = tmp_path / "My Projects & 100% ü" / "shelf"
    shutil.copytree(migrated_once(generate(auth=False)), folder)
    shutil.copy(folder / ".env.example", folder / ".env")
    (folder / ".env").chmod(0o600)
    with sqlite3.connect(folder / "app.db") as connection:
        connection.execute("INSERT INTO permissions (name, description) VALUES ('shelf', '')")
    return folder


def run(project: Path, current: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command of an installed project, in any folder."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=current,
        env={**clean_environment(), "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("current", ["app/api", ".."])
def test_a_backup_is_of_the_project_and_goes_to_the_current_folder(
    shelf: Path, current: str
) -> None:
    folder = (shelf / current).resolve()

    done = run(shelf, folder, "-m", "app", "db", "backup", "backup.db")

    assert done.returncode == 0, done.stderr
    assert str(shelf / "app.db") in done.stdout
    with sqlite3.connect(folder / "backup.db") as backup:
        assert backup.execute("SELECT 1 FROM permissions WHERE name = 'shelf'").fetchone()
    assert not (folder / "app.db").exists()


def test_a_command_refuses_to_run_in_the_folder_of_another_project(
    shelf: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(shelf, tmp_path / "other")

    # Not `-m app`, which takes the app of the current folder.
    done = run(shelf, other / "docs", "-c", "from app.cli import main; main()", "db", "upgrade")

    assert done.returncode == 1
    assert str(shelf) in done.stderr
    assert str(other) in done.stderr


def test_the_settings_come_from_the_project(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOG_LEVEL=ERROR\n")
    code = "from app.settings import load_settings; print(load_settings().environment)"

    assert run(shelf, tmp_path, "-c", code).stdout == "development\n"


def test_migrations_run_from_another_folder(shelf: Path, tmp_path: Path) -> None:
    (shelf / "app.db").unlink()

    done = run(shelf, tmp_path, "-m", "app", "db", "upgrade")

    assert done.returncode == 0, done.stderr
    with sqlite3.connect(shelf / "app.db") as connection:
        assert connection.execute("SELECT count(*) FROM permissions").fetchone()
    assert not (tmp_path / "app.db").exists()


def test_check_says_which_files_it_judges(shelf: Path, tmp_path: Path) -> None:
    done = run(shelf, tmp_path, "-m", "app", "check")

    assert done.returncode == 0, done.stdout
    assert f"settings: {shelf / '.env'}" in done.stdout
    assert f"database: {shelf / 'app.db'}" in done.stdout


def test_check_deploy_judges_the_environment_that_the_app_will_run_in(shelf: Path) -> None:
    with (shelf / ".env").open("a") as file:
        file.write("ALLOWED_HOSTS=api.example.com\n")

    done = run(shelf, shelf, "-m", "app", "check", "--deploy")

    assert done.returncode == 1
    assert "error   environment: development: set ENVIRONMENT=production" in done.stdout
    assert "ok      environment" not in done.stdout
