"""The guards in a project's tests fail where they should, and say what to do."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import Migrated
from tests.support.projects import Generate, Project

pytestmark = pytest.mark.slow


def test_a_route_without_a_guard_fails_the_tests(
    generate: Generate, migrated_once: Migrated, tmp_path: Path
) -> None:
    folder = tmp_path / "shelf"
    shutil.copytree(migrated_once(generate(auth=True)), folder)
    home = folder / "app/api/v1/home_router.py"
    home.write_text(f'{home.read_text()}\n\n@router.get("/open")\nasync def read() -> None: ...\n')

    run = Project(folder, {}).run("pytest", "-q", "tests/auth/test_guards.py")

    assert run.returncode == 1
    assert "/api/v1/open" in run.stdout
    assert "PUBLIC_ROUTES" in run.stdout
