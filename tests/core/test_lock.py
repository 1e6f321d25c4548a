"""The exact versions of all libraries, and what a command may overwrite."""

import shutil
from pathlib import Path

import pytest

from app.core.lock import LockError, find_other_versions, find_stale_pins, lock
from tests.conftest import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "constraints.txt", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_a_new_library_is_missing_from_the_lock(project: Path) -> None:
    assert find_stale_pins(project) == []
    package = project / "pyproject.toml"
    text = package.read_text("utf-8")
    package.write_text(
        text.replace("dependencies = [", 'dependencies = [\n    "markdown",', 1), "utf-8"
    )

    assert find_stale_pins(project) == ["requirements.txt lacks markdown"]


def test_only_the_installed_version_of_what_runs_is_compared(project: Path) -> None:
    """In development, pip builds with another copy of setuptools than `.venv` has."""
    package = project / "pyproject.toml"
    package.write_text('[build-system]\nrequires = ["pytest>=9"]\n', "utf-8")
    lock_file = project / "requirements.txt"
    header = lock_file.read_text("utf-8").splitlines()[0]
    lock_file.write_text(f"{header}\npytest==0.1\nuvicorn==0.1\n", "utf-8")

    (problem,) = find_other_versions(project)

    assert problem.startswith("uvicorn")
    assert problem.endswith("is installed, but requirements.txt has 0.1")


def test_a_file_of_the_owner_with_the_name_of_the_lock_is_neither_judged_nor_overwritten(
    project: Path,
) -> None:
    own = project / "requirements.txt"
    own.write_text("fastapi==0.1\n", "utf-8")

    assert find_stale_pins(project) == []
    assert find_other_versions(project) == []
    with pytest.raises(LockError, match="rename it"):
        lock(project)
    assert own.read_text("utf-8") == "fastapi==0.1\n"
