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
    routes = """

@router.get("/open")
async def read() -> None: ...


@router.get("/greeting")
async def read_greeting(user: OptionalUser) -> None: ...


@router.post("/open")
async def change(user: OptionalUser) -> None: ...
"""
    home.write_text(f"from app.api.deps import OptionalUser\n{home.read_text()}{routes}")

    run = Project(folder, {}).run("pytest", "-q", "tests/auth/test_guards.py")

    assert run.returncode == 1
    assert 'list ("GET", "/api/v1/open") in PUBLIC_ROUTES' in run.stdout
    assert 'list ("POST", "/api/v1/open") in PUBLIC_ROUTES' in run.stdout
    assert "greeting" not in run.stdout


def test_a_folder_of_static_files_is_public_only_if_it_is_listed(
    generate: Generate, migrated_once: Migrated, tmp_path: Path
) -> None:
    project = Project(tmp_path / "shelf", {})
    shutil.copytree(migrated_once(generate(auth=True)), project.path)
    (project.path / "static").mkdir()
    routers = project.path / "app/api/routers.py"
    routers.write_text(
        f"from fastapi.staticfiles import StaticFiles\n{routers.read_text()}"
        '    app.mount("/static", StaticFiles(directory="static"))\n'
        '    app.frontend("/shop", directory="static")\n'
    )
    guards = ("pytest", "-q", "tests/auth/test_guards.py")

    output = project.run(*guards).stdout

    permissions = project.path / "app/permissions.py"
    for line in ('("MOUNT", "/static")', '("MOUNT", "/shop")'):
        assert f"list {line} in PUBLIC_ROUTES" in output
        source = permissions.read_text()
        permissions.write_text(source.replace("ROUTES = {\n", f"ROUTES = {{\n    {line},\n"))
    project.succeed(*guards)
