"""What every combination of options renders."""

import os
import re
import shutil
import stat
from pathlib import Path

import pytest

from tests.support.projects import Generate, Project

SKELETON = [
    ".copier-answers.yml",
    ".editorconfig",
    ".env.example",
    ".gitattributes",
    ".gitignore",
    ".pre-commit-config.yaml",
    "README.md",
    "alembic.ini",
    "constraints.txt",
    "pyproject.toml",
    "requirements.txt",
    "setup.bat",
    "setup.sh",
    "alembic/env.py",
    "alembic/script.py.mako",
    "alembic/versions/8ded3252ce31_init.py",
    "alembic/versions/c3f07a5e9b21_ids.py",
    "deploy/Caddyfile",
    "deploy/my-app-backup.service",
    "deploy/my-app-backup.timer",
    "deploy/my-app.service",
    "deploy/nginx.conf",
    "app/main.py",
    "app/settings.py",
    "app/errors.py",
    "app/cli.py",
    "app/core/app.py",
    "app/core/autogenerate.py",
    "app/core/backup.py",
    "app/core/batches.py",
    "app/core/checks.py",
    "app/core/clients.py",
    "app/core/commands.py",
    "app/core/compatibility.py",
    "app/core/copy_database.py",
    "app/core/database.py",
    "app/core/errors.py",
    "app/core/generators.py",
    "app/core/health.py",
    "app/core/lock.py",
    "app/core/logging.py",
    "app/core/middleware.py",
    "app/core/migrations.py",
    "app/core/openapi.py",
    "app/core/pages.py",
    "app/core/reflection.py",
    "app/core/resources.py",
    "app/core/routing.py",
    "app/core/seed_data.py",
    "app/core/server.py",
    "app/core/settings.py",
    "app/core/sqlite.py",
    "app/core/types.py",
    "app/core/welcome.html",
    "app/db/base.py",
    "app/db/session.py",
    "app/models/__init__.py",
    "app/models/user.py",
    "app/schemas/user.py",
    "app/api/deps.py",
    "app/api/routers.py",
    "app/api/v1/home_router.py",
    "generators/commands.py",
    "generators/model.py.j2",
    "generators/router.py.j2",
    "generators/schemas.py.j2",
    "generators/tests.py.j2",
    "tests/conftest.py",
]


def test_the_skeleton_is_there(project: Project) -> None:
    missing = [file for file in SKELETON if not project.has(file)]

    assert missing == []


def test_what_must_never_be_rendered_is_not(project: Project) -> None:
    assert not project.has(".env")
    # It would shadow the library of that name.
    assert not project.has("alembic/__init__.py")
    assert not list(project.path.rglob("*.db"))


def test_nothing_of_the_template_is_left_over(project: Project) -> None:
    for file in project.files():
        text = project.read(str(file))
        assert file.suffix != ".jinja"
        assert text.endswith("\n") or not text, file
        assert not text.endswith("\n\n"), file
        if file.suffix != ".mako" and file.parts[0] != "generators":
            # Workflows have expressions, too, and f-strings have triple braces.
            assert not re.search(r"(?<![{$]){{(?!{)", text), file
            assert "{%" not in text, file
        blank_lines = 3 if file.suffix in {".py", ".mako", ".md", ".j2"} else 2
        assert "\n" * (blank_lines + 1) not in text.replace("\r", ""), file


def test_no_folder_is_empty(project: Project) -> None:
    assert [d for d in project.path.rglob("*") if d.is_dir() and not any(d.iterdir())] == []


def test_file_names_are_fit_for_windows(project: Project) -> None:
    for file in project.files():
        assert not re.search(r'[<>:"|?*\\]', file.as_posix())
        assert not re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)", file.name)
        assert len(file.as_posix()) < 100
    folded = [file.as_posix().casefold() for file in project.files()]
    assert len(folded) == len(set(folded))


def test_no_file_is_a_link(project: Project) -> None:
    assert not any(path.is_symlink() for path in project.path.rglob("*"))


def test_the_batch_file_asks_after_each_step_whether_it_failed(project: Project) -> None:
    """`&&` would be shorter; but a step inside parentheses sees the exit code of before them."""
    lines = project.read("setup.bat").splitlines()
    starts = ("call uv", "call %")
    steps = {n for n, line in enumerate(lines) if line.startswith(starts)}
    # What only tells about a Python that is too old.
    steps -= {n for n in steps if lines[n] == "call %TOO_OLD% --version"}

    assert len(steps) > 4
    assert [
        lines[n] for n in steps if not re.match(r"if (not )?errorlevel [12] ", lines[n + 1])
    ] == []


@pytest.mark.skipif(os.name == "nt", reason="NTFS has no run bits")
def test_the_set_up_script_can_be_run(project: Project) -> None:
    assert (project.path / "setup.sh").stat().st_mode & stat.S_IXUSR


def test_the_windows_script_keeps_its_line_endings(project: Project) -> None:
    script = (project.path / "setup.bat").read_bytes()

    assert script.isascii()
    assert script.count(b"\n") == script.count(b"\r\n") > 0
    assert b"&&" not in script
    assert b"||" not in script


@pytest.mark.parametrize("command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]])
def test_it_is_clean_as_born(project: Project, tmp_path: Path, command: list[str]) -> None:
    project.succeed(*command, RUFF_NO_CACHE="true")


@pytest.mark.parametrize("auth", [True, False], ids=["auth", "plain"])
def test_its_own_tests_pass(generate: Generate, tmp_path: Path, auth: bool) -> None:
    copy = Project(tmp_path / "project", {})
    shutil.copytree(generate(auth=auth).path, copy.path)

    assert "passed" in copy.succeed("pytest", "-q")


def test_the_tests_pass_whatever_the_name(generate: Generate, tmp_path: Path) -> None:
    copy = Project(tmp_path / "project", {})
    shutil.copytree(generate(project_name="Bücher & Größe (2)").path, copy.path)

    copy.succeed("pytest", "-q", "tests/test_home.py")


def test_g1_equal_answers_give_equal_files_so_nothing_in_them_is_random(
    render: Generate, project: Project
) -> None:
    again = render(**project.answers)

    assert again.files() == project.files()
    for file in project.files():
        assert (again.path / file).read_bytes() == (project.path / file).read_bytes(), file


def test_long_answers_are_clean_too(generate: Generate) -> None:
    """The formatter breaks long lines, and answers make lines long."""
    for length in range(40, 65, 4):
        project = generate(project_name="N" * length, project_description="d" * (3 * length))
        project.succeed("ruff", "format", "--check", RUFF_NO_CACHE="true")
        project.succeed("ruff", "check", RUFF_NO_CACHE="true")
