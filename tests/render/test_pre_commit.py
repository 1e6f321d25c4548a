"""The checks before a commit: here, and in a generated project."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.projects import ROOT, Generate, Project, clean_environment
from tests.update.edits import git

PREK = Path(sys.executable).with_name("prek")


def run_checks(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**clean_environment(), "RUFF_NO_CACHE": "true"}
    return subprocess.run(
        [PREK, "run", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def shelf(generate: Generate, tmp_path: Path) -> Project:
    """A new project in git, with this environment as its `.venv`."""
    copy = Project(Path(shutil.copytree(generate().path, tmp_path / "shelf")), {})
    (copy.path / ".venv").symlink_to(sys.prefix)
    git(copy.path, "init", "--quiet")
    git(copy.path, "add", "--all")
    return copy


@pytest.mark.skipif(os.name == "nt", reason="links the environment")
def test_a_new_project_passes_its_checks(shelf: Project) -> None:
    done = run_checks(shelf.path, "--all-files")

    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("ruff check", "ruff format", "mypy", "typos"):
        assert f"{name}..." in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="links the environment")
def test_each_check_sees_its_faults(shelf: Project) -> None:
    file = shelf.path / "app/shelf.py"
    misspelled = "t" + "eh"
    file.write_text(f'name: int="a"\nimport os\n# {misspelled} shelf\n')
    git(shelf.path, "add", "--all")

    done = run_checks(shelf.path, "--files", "app/shelf.py")

    assert done.returncode == 1
    assert done.stdout.count("Failed") == 4, done.stdout + done.stderr


def test_the_prose_check_takes_only_files_with_prose(tmp_path: Path) -> None:
    done = run_checks(ROOT, "prose", "--files", "LICENSE", "template/setup.bat")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "prose..." in done.stdout


@pytest.mark.parametrize(("length", "code"), [(72, 0), (73, 1)])
def test_a_commit_subject_has_at_most_72_characters(tmp_path: Path, length: int, code: int) -> None:
    shutil.copy(ROOT / ".pre-commit-config.yaml", tmp_path)
    message = tmp_path / "message"
    message.write_text("s" * length + "\n\n" + "A longer line of the body. " * 5 + "\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")

    stage = ("--stage", "commit-msg", "--commit-msg-filename", str(message))

    assert run_checks(tmp_path, *stage).returncode == code
