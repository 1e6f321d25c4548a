"""The tests of the template's machinery, which only run inside a generated project.

Projects do not get them: an owner has no use for tests of code that is not theirs to change.
"""

import shutil
import tempfile
from pathlib import Path

from tests.support.machines import quick_folder
from tests.support.projects import ROOT, Project


def add_internal_tests(project: Project) -> list[str]:
    """Copy these tests into a project; returns their folders, relative to the project."""
    folders = ["tests/core"]
    if project.has("app/auth"):
        folders.append("tests/auth_internals")
    for folder in folders:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, project.path / folder, ignore=ignore)
    return folders


def with_internal_tests(project: Project, folder: Path) -> Project:
    """A copy of a project, in a new folder."""
    copy = Project(Path(shutil.copytree(project.path, folder / "project")), project.answers)
    add_internal_tests(copy)
    return copy


def run_internal_tests(project: Project, files: str) -> None:
    found = [str(file) for file in project.path.glob(f"tests/{files}")]
    with tempfile.TemporaryDirectory(prefix="tests-", dir=quick_folder()) as folder:
        said = project.succeed("pytest", "-q", "--tb=short", *sorted(found), TMPDIR=folder)
    assert " passed" in said


def in_parts(project: Project, folders: list[str]) -> list[list[str]]:
    """Arguments of pytest that together run all tests, each within the time of one command."""
    own = [f"--ignore={folder}" for folder in folders]
    parts = [own]
    for folder in folders:
        files = sorted(f"{folder}/{file.name}" for file in project.path.glob(f"{folder}/test_*.py"))
        parts += [files[number::3] for number in range(3)]
    return parts
