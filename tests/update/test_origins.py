"""Where a template can come from: each project can be updated, or says at once that it can't."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.projects import Project, clean_environment
from tests.update.conftest import Update
from tests.update.edits import commit, git

pytestmark = pytest.mark.slow

# Setup stops at once: these tests are about what is rendered.
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "UV_OFFLINE": "1", "UV_NO_CACHE": "1"}


@pytest.fixture
def origin(template: Path, tmp_path: Path) -> Path:
    """A clone of the template to commit to."""
    folder = tmp_path / "My Templates ü & co"
    shutil.copytree(template, folder)
    return folder


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        env={**clean_environment(), **OFFLINE, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return done.stdout


def create(script: Path, shelf: Path, template: str) -> Project:
    said = run(script, shelf, "--template", template)
    assert "The project's files are complete." in said
    project = Project(shelf, {})
    git(shelf, "init", "--quiet")
    commit(project, "Start")
    return project


def release(origin: Path, tag: str = "") -> None:
    with (origin / "template/.gitattributes").open("a") as file:
        file.write("*.next text\n")
    git(origin, "commit", "--quiet", "--all", "-m", "Next")
    if tag:
        git(origin, "tag", tag)


@pytest.mark.parametrize("scheme", ["", "git+file://"], ids=["path", "URL"])
def test_a_project_from_a_path_or_a_url_is_updated_to_the_next_release(
    origin: Path, update: Update, tmp_path: Path, scheme: str
) -> None:
    project = create(origin / "create_project.py", tmp_path / "shelf", f"{scheme}{origin}")
    assert "_commit: v1000.0.0\n" in project.read(".copier-answers.yml")
    release(origin, "v1001.0.0")

    update(project)

    assert "*.next text" in project.read(".gitattributes")
    assert "_commit: v1001.0.0\n" in project.read(".copier-answers.yml")
    assert git(project.path, "ls-files", "--unmerged") == ""


@pytest.mark.parametrize("tag", ["", "v1001.0.0"], ids=["to the next commit", "to a first tag"])
def test_a_project_from_a_template_without_tags_is_updated(
    origin: Path, update: Update, tmp_path: Path, tag: str
) -> None:
    git(origin, "tag", "--delete", *git(origin, "tag").split())
    project = create(origin / "create_project.py", tmp_path / "shelf", str(origin))
    release(origin, tag)

    update(project)

    assert "*.next text" in project.read(".gitattributes")
    assert git(project.path, "ls-files", "--unmerged") == ""


def test_projects_inside_a_checkout_without_tags_are_no_change_of_it(
    origin: Path, update: Update
) -> None:
    """Copier would commit them with the template, but not a folder that is a repository."""
    git(origin, "tag", "--delete", *git(origin, "tag").split())
    project = create(origin / "create_project.py", origin / "my_new_app", str(origin))
    release(origin)

    update(project)

    assert "*.next text" in project.read(".gitattributes")
    assert git(project.path, "ls-files", "--unmerged") == ""


def test_a_template_without_history_is_told_about_when_the_project_is_made(
    origin: Path, tmp_path: Path
) -> None:
    shutil.rmtree(origin / ".git")

    said = run(origin / "create_project.py", tmp_path / "shelf")

    assert "the template has no git history, so this project can't be updated later" in said


def test_a_shallow_clone_is_told_about_when_the_project_is_made(
    origin: Path, tmp_path: Path
) -> None:
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{origin}", str(shallow))

    said = run(shallow / "create_project.py", tmp_path / "shelf")

    assert "WARNING: the template is a shallow clone" in said
    assert f"git -C {shallow} fetch --unshallow" in said


def test_copier_copy_from_uncommitted_files_says_what_it_costs(
    origin: Path, tmp_path: Path
) -> None:
    (origin / "template/.gitattributes").write_text("* text=auto\n")
    copy = ["-m", "copier", "copy", "--trust", "--defaults", "--vcs-ref", "HEAD"]

    said = run(*copy, origin, tmp_path / "shelf", COPIER_FASTAPI_SETUP="skip")

    assert "WARNING: the template has uncommitted changes" in said
    assert "commit them and generate the project again" in said
    clean = run(*copy, "--vcs-ref=v1000.0.0", origin, tmp_path / "clean")
    assert "uncommitted" not in clean


def test_a_relative_path_is_told_about_when_the_project_is_made(
    origin: Path, tmp_path: Path
) -> None:
    copy = ["-m", "copier", "copy", "--trust", "--defaults", "--vcs-ref=v1000.0.0"]
    relative = origin.relative_to(tmp_path)

    said = subprocess.run(
        [sys.executable, *copy, f"./{relative}", "shelf"],
        cwd=tmp_path,
        env={**clean_environment(), "COPIER_FASTAPI_SETUP": "skip"},
        capture_output=True,
        text=True,
        check=True,
    ).stderr

    assert "won't find the template, because its path is" in said


def test_letters_that_a_code_page_lacks_stop_neither_the_script_nor_the_hook(
    origin: Path, tmp_path: Path
) -> None:
    """Output into a pipe on Windows can't hold most names."""
    folder = tmp_path / "名"
    template = Path(shutil.copytree(origin, folder / "template"))
    old = {"PYTHONIOENCODING": "cp437"}
    copy = ("-m", "copier", "copy", "--trust", "--defaults", "--quiet", template)

    said = run(template / "create_project.py", folder / "shelf", **old)
    hook = run(*copy, folder / "other", COPIER_FASTAPI_SETUP="skip", **old)

    assert "Creating the project from" in said
    assert "The project's files are complete." in said
    assert "COPIER_FASTAPI_SETUP=skip: run ./setup.sh in " in hook
    assert "Traceback" not in said + hook
    assert "\\u540d" in said
    assert "\\u540d" in hook


@pytest.mark.parametrize("setting", ["true", "input"])
def test_line_endings_survive_an_update_whatever_git_is_told_to_convert(
    origin: Path, update: Update, tmp_path: Path, setting: str
) -> None:
    """git for Windows sets core.autocrlf; what the owner's editor saved is the owner's."""
    project = create(origin / "create_project.py", tmp_path / "shelf", str(origin))
    git(project.path, "config", "core.autocrlf", setting)
    git(project.path, "rm", "--quiet", "-r", "--cached", ".")
    git(project.path, "reset", "--quiet", "--hard")
    with (project.path / "app/settings.py").open("a", newline="") as settings:
        settings.write("# mine\r\n")
    commit(project, "Mine")
    with (origin / "template/setup.bat").open("ab") as script:
        script.write(b"rem next\r\n")
    release(origin, "v1001.0.0")

    update(project)

    changed = git(project.path, "diff", "--name-only").split()
    assert changed == [".copier-answers.yml", ".gitattributes", "setup.bat"]
    script_bytes = (project.path / "setup.bat").read_bytes()
    assert script_bytes.endswith(b"\r\nrem next\r\n")
    assert script_bytes.count(b"\n") == script_bytes.count(b"\r\n")
    assert b"\r" not in (project.path / ".gitattributes").read_bytes()
