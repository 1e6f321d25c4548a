"""An option that is turned on later, with rows in the database: real Copier, real git."""

import subprocess
from pathlib import Path

import pytest
from copier import run_copy, run_update

from tests.machines import check_out
from tests.projects import Project

pytestmark = pytest.mark.slow

PASSWORD = "seven wet otters on a raft"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return check_out(tmp_path_factory.mktemp("checkout"))


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_log_in_comes_to_a_project_that_was_started_without(checkout: Path, tmp_path: Path) -> None:
    project = Project(tmp_path / "shelf", {})
    run_copy(
        str(checkout), project.path, {"auth": False}, defaults=True, skip_tasks=True, quiet=True
    )
    git(project.path, "init", "--quiet")
    git(project.path, "add", "--all")
    git(project.path, "commit", "--quiet", "-m", "Start")
    project.succeed("alembic", "upgrade", "head")
    before = project.files()

    run_update(
        project.path,
        {"auth": True},
        defaults=True,
        skip_tasks=True,
        overwrite=True,
        unsafe=True,
        quiet=True,
    )

    assert "UU" not in git(project.path, "status", "--porcelain")
    assert set(before) < set(project.files())
    assert "Running upgrade 8ded3252ce31 -> 41d7a60c93be" in project.succeed(
        "alembic", "upgrade", "head"
    )
    create = ("app", "user", "create-admin", "ada", "ada@example.com")
    assert "holds every permission" in project.succeed(*create, stdin=f"{PASSWORD}\n")
    project.succeed("app", "check")
    project.succeed("mypy")
    project.succeed("pytest", "-q", "tests/auth/test_users.py", "-k", "z1 or openapi")
