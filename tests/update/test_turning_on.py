"""An option that is turned on or off later, with rows in the database: real Copier, real git."""

import sys

import pytest
from copier import run_recopy, run_update
from copier.errors import TaskError
from plumbum import local

from tests.update.conftest import Start, Update
from tests.update.edits import commit, fill, git, live_with, replace, rows

pytestmark = pytest.mark.slow

HEAD = "v1000.0.0"
IDS = "alembic/versions/c3f07a5e9b21_ids.py"
PASSWORD = "seven wet otters on a raft"


def test_log_in_comes_to_a_project_that_was_started_without(start: Start, update: Update) -> None:
    project = start(HEAD, auth=False)
    git(project.path, "init", "--quiet")
    commit(project, "Start")
    project.succeed("alembic", "upgrade", "head")
    before = project.files()

    update(project, HEAD, auth=True)

    assert git(project.path, "ls-files", "--unmerged") == ""
    assert set(before) <= set(project.files())
    said = project.succeed("alembic", "upgrade", "head")
    assert "Running upgrade c3f07a5e9b21 -> 41d7a60c93be" in said
    # The template has another parent for it in a project with the login.
    assert 'down_revision = "8ded3252ce31"' in project.read(IDS)
    create = ("app", "user", "create-admin", "ada", "ada@example.com")
    assert "Created ada with every permission" in project.succeed(*create, stdin=f"{PASSWORD}\n")
    project.succeed("app", "check")
    project.succeed("mypy")
    project.succeed("pytest", "-q", "tests/auth/test_guards.py")


def test_rendering_again_keeps_the_migrations_in_one_line(start: Start, update: Update) -> None:
    """`copier recopy` renders the template's own order of the migrations."""
    project = start(HEAD, auth=False)
    git(project.path, "init", "--quiet")
    commit(project, "Start")
    project.succeed("alembic", "revision", "-m", "books", "--rev-id=0001")
    commit(project, "Books")
    update(project, HEAD, auth=True)
    commit(project, "Log in")
    order = project.succeed("alembic", "history")

    with local.env(COPIER_FASTAPI_SETUP="skip"):
        run_recopy(
            project.path, vcs_ref=HEAD, defaults=True, overwrite=True, unsafe=True, quiet=True
        )

    assert project.succeed("alembic", "history") == order
    assert git(project.path, "status", "--porcelain") == ""


def test_log_in_leaves_a_project_and_every_row_stays(
    start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start(HEAD, auth=True)
    live_with(project)
    fill(project)
    kept = rows(project)

    update(project, HEAD, auth=False)

    said = capfd.readouterr().out
    assert "41d7a60c93be_auth.py stays, because your database has it" in said
    # The owner's permission, and a line for the test of the guards: nothing of it is lost unseen.
    assert "app/permissions.py: the template no longer has it. These changes" in said
    assert '[update]     +    BOOKS_READ = "books:read", "See books"' in said
    assert git(project.path, "ls-files", "--unmerged") == ""
    assert not project.has("app/auth")
    assert not project.has("tests/auth")
    assert "0002_year (head)" in project.succeed("alembic", "heads")
    project.succeed("alembic", "upgrade", "head")
    assert rows(project) == kept
    drop = ("alembic", "revision", "-m", "drop", "--autogenerate", "--rev-id=0003")
    project.succeed(*drop)
    assert "op.drop_table('throttles')" in project.read("alembic/versions/0003_drop.py")
    project.succeed("alembic", "upgrade", "head")
    assert rows(project) == kept
    project.succeed("mypy")
    assert "passed" in project.succeed("pytest", "-q")


def test_log_in_that_comes_back_after_its_tables_were_dropped_is_told_to_make_them_again(
    start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start(HEAD, auth=True)
    git(project.path, "init", "--quiet")
    commit(project, "Start")
    project.succeed("alembic", "upgrade", "head")
    update(project, HEAD, auth=False)
    commit(project, "Without log-in")
    project.succeed("alembic", "revision", "-m", "drop", "--autogenerate")
    project.succeed("alembic", "upgrade", "head")
    # The last step of setup, in this environment. The hook looks at the Python of the project.
    (project.path / "setup.sh").write_text(f"exec {sys.executable} -m alembic upgrade head\n")
    commit(project, "Drop")
    (project.path / ".venv/bin").mkdir(parents=True)
    python = project.path / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    capfd.readouterr()

    with local.env(COPIER_FASTAPI_SETUP="run"):
        run_update(
            project.path, {"auth": True}, vcs_ref=HEAD, defaults=True, overwrite=True, unsafe=True
        )

    said = capfd.readouterr().out
    assert "stays, because your database has it" not in said
    assert git(project.path, "ls-files", "--unmerged") == ""
    assert "[update] Your models and the database differ." in said
    project.succeed("alembic", "revision", "-m", "restore", "--autogenerate")
    project.succeed("alembic", "upgrade", "head")
    create = ("app", "user", "create-admin", "ada", "ada@example.com")
    assert "Created ada with every permission" in project.succeed(*create, stdin=f"{PASSWORD}\n")
    project.succeed("alembic", "check")


def test_a_file_that_both_made_is_a_conflict(
    start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start(HEAD, auth=False, github=False)
    git(project.path, "init", "--quiet")
    (project.path / ".github/workflows").mkdir(parents=True)
    own = "name: Mine\non: push\n"
    (project.path / ".github/workflows/ci.yml").write_text(own)
    (project.path / "app/permissions.py").write_text("PERMISSIONS = []\n")
    commit(project, "Start")

    with pytest.raises(TaskError):
        update(project, HEAD, auth=True, github=True)

    said = capfd.readouterr().out
    for file in (".github/workflows/ci.yml", "app/permissions.py"):
        assert f"[update]     {file}" in said
        assert "<<<<<<<" in project.read(file)


def test_workflows_come_and_go_and_an_own_one_stays(
    start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start(HEAD, auth=False, github=False)
    git(project.path, "init", "--quiet")
    (project.path / ".github/workflows").mkdir(parents=True)
    (project.path / ".github/workflows/deploy.yml").write_text("name: Deploy\n")
    commit(project, "Start")

    update(project, HEAD, github=True)

    assert sorted(path.name for path in (project.path / ".github/workflows").iterdir()) == [
        "ci.yml",
        "deploy.yml",
        "image.yml",
        "template-update.yml",
    ]
    replace(project, ".github/workflows/ci.yml", "fail-fast: false", "fail-fast: true")
    commit(project, "Workflows")
    update(project, HEAD, github=False)
    said = capfd.readouterr().out
    assert ".github/workflows/ci.yml: the template no longer has it. These changes" in said
    assert "[update]     +      fail-fast: true" in said
    assert not project.has(".github/workflows/ci.yml")
    assert project.has(".github/workflows/deploy.yml")
    assert not project.has(".github/dependabot.yml")


def test_docker_goes_and_comes_back_and_an_own_file_next_to_its_files_stays(
    start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    files = (".dockerignore", "Dockerfile", "compose.yaml", "deploy/litestream.yml")
    project = start(HEAD)
    (project.path / "deploy/mine.sh").write_text("echo mine\n")
    git(project.path, "init", "--quiet")
    commit(project, "Start")
    rendered = {name: project.read(name) for name in (*files, "docs/operating.md")}
    replace(project, "compose.yaml", "restart: unless-stopped", "restart: always")
    commit(project, "Restart")

    update(project, HEAD, docker=False)

    said = capfd.readouterr().out
    assert "compose.yaml: the template no longer has it. These changes" in said
    assert "[update]     +    restart: always" in said
    assert [name for name in files if project.has(name)] == []
    assert "docker compose" not in project.read("docs/operating.md")
    commit(project, "Without Docker")

    update(project, HEAD, docker=True)

    assert {name: project.read(name) for name in rendered} == rendered
    assert project.read("deploy/mine.sh") == "echo mine\n"
    assert git(project.path, "ls-files", "--unmerged") == ""
