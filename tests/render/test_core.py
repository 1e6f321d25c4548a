"""The tests in tests/core and tests/auth_internals, which run inside a generated project."""

import shutil
from pathlib import Path

import pytest

from tests.support.internals import add_internal_tests
from tests.support.projects import ROOT, Generate, Project


def with_internal_tests(project: Project, folder: Path) -> Project:
    copy = Project(Path(shutil.copytree(project.path, folder / "project")), project.answers)
    add_internal_tests(copy)
    return copy


@pytest.mark.parametrize(
    ("auth", "files"),
    [
        # In parts, for several workers.
        (True, "tests/auth_internals/test_[a-k]*.py"),
        (True, "tests/auth_internals/test_[lm]*.py"),
        (True, "tests/auth_internals/test_[n-z]*.py"),
        (True, "tests/core/test_*.py"),
        (False, "tests/core/test_*.py"),
    ],
    ids=["auth a-k", "auth l-m", "auth n-z", "core with auth", "core"],
)
def test_the_machinery_of_a_project_passes_its_tests(
    generate: Generate, tmp_path: Path, auth: bool, files: str
) -> None:
    project = with_internal_tests(generate(auth=auth), tmp_path)
    found = [str(file) for file in project.path.glob(files)]

    assert " passed" in project.succeed("pytest", "-q", "--tb=short", *sorted(found))


def test_these_tests_have_correct_types(generate: Generate, tmp_path: Path) -> None:
    project = with_internal_tests(generate(auth=True), tmp_path)
    cache = str(ROOT / ".mypy_cache" / "projects")

    project.succeed("mypy", "tests/core", "tests/auth_internals", MYPY_CACHE_DIR=cache)
