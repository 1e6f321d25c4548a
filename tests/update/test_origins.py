"""Where a template can come from: each project can be updated, or says at once that it can't."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.projects import Project, clean_environment
from tests.update.conftest import Update
from tests.update.edits import commit, git
from tools.address import change

pytestmark = pytest.mark.slow

# Setup stops at once: these tests are about what is rendered.
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "UV_OFFLINE": "1", "UV_NO_CACHE": "1"}
SKIP = {"COPIER_FASTAPI_SETUP": "skip"}
NEWS = "# Changelog\n\n## Unreleased\n\n## 1001.0.0\n\nAfter updating: water the plants.\n"


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


def test_a_zip_file_of_a_published_template_makes_a_project_that_can_be_updated(
    origin: Path, update: Update, tmp_path: Path
) -> None:
    address = f"git+file://{origin}"
    change(address, origin)
    release(origin, "v1000.1.0")
    git(origin, "archive", "--format=zip", f"--output={tmp_path}/main.zip", "HEAD")
    shutil.unpack_archive(tmp_path / "main.zip", tmp_path / "unpacked")
    project = create(tmp_path / "unpacked/create_project.py", tmp_path / "shelf", "")
    assert f"_commit: {git(origin, 'rev-parse', 'HEAD')}" in project.read(".copier-answers.yml")
    release(origin, "v1001.0.0")

    update(project)

    assert project.read(".gitattributes").count("*.next text") == 2
    assert git(project.path, "ls-files", "--unmerged") == ""


def test_a_template_without_history_is_told_about_when_the_project_is_made(
    origin: Path, tmp_path: Path
) -> None:
    shutil.rmtree(origin / ".git")

    said = run(origin / "create_project.py", tmp_path / "shelf")

    assert said.count("NOTE: ") == 1
    assert said.splitlines()[-1].startswith("NOTE: this project can't be updated later, because")
    assert "# Updates are not possible" in (tmp_path / "shelf/.copier-answers.yml").read_text()


def test_a_shallow_clone_is_told_about_when_the_project_is_made(
    origin: Path, tmp_path: Path
) -> None:
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{origin}", str(shallow))

    said = run(shallow / "create_project.py", tmp_path / "shelf")

    assert "NOTE: the template is a shallow clone." in said
    assert f'git -C "{shallow}" fetch --unshallow' in said
    assert "No git tags found" not in said


def test_copier_copy_from_uncommitted_files_says_what_it_costs(
    origin: Path, tmp_path: Path
) -> None:
    (origin / "template/.gitattributes").write_text("* text=auto\n")
    copy = ["-m", "copier", "copy", "--trust", "--defaults", "--vcs-ref", "HEAD"]

    said = run(*copy, origin, tmp_path / "shelf", COPIER_FASTAPI_SETUP="skip")

    assert "NOTE: the template has uncommitted changes" in said
    assert "Commit them and create the project again" in said
    clean = run(*copy, "--vcs-ref=v1000.0.0", origin, tmp_path / "clean")
    assert "uncommitted" not in clean


def test_a_relative_path_of_the_template_is_stored_as_an_absolute_one(
    origin: Path, tmp_path: Path
) -> None:
    copy = ["-m", "copier", "copy", "--trust", "--defaults", "--quiet", "--vcs-ref=v1000.0.0"]
    relative = origin.relative_to(tmp_path)

    said = subprocess.run(
        [sys.executable, *copy, f"./{relative}", "books/shelf"],
        cwd=tmp_path,
        env={**clean_environment(), "COPIER_FASTAPI_SETUP": "skip"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout

    answers = yaml.safe_load((tmp_path / "books/shelf/.copier-answers.yml").read_text("utf-8"))
    assert answers["_src_path"] == str(origin)
    assert said.count("NOTE: ") == 1
    assert said.splitlines()[-1].startswith("NOTE: GitHub can't reach a template on this computer.")


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

    assert "[create_project] Creating " in said
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


def test_an_update_ends_with_what_the_changelog_asks_of_the_owner(
    origin: Path, tmp_path: Path
) -> None:
    project = create(origin / "create_project.py", tmp_path / "shelf", str(origin))
    attributes = project.path / ".gitattributes"
    attributes.write_text(f"# mine\n{attributes.read_text()}")
    commit(project, "Mine")
    (origin / "CHANGELOG.md").write_text(NEWS, "utf-8")
    release(origin, "v1001.0.0")

    said = run("-m", "copier", "update", "--trust", "--defaults", project.path, **SKIP)

    assert "merged your changes and the template's in 1 file: .gitattributes\n" in said
    assert said.rstrip().splitlines()[-1] == "[update] 1001.0.0: After updating: water the plants."
    assert len(said.splitlines()) <= 12, said


def test_an_update_between_commits_without_a_tag_names_the_versions_they_declare(
    origin: Path, tmp_path: Path
) -> None:
    git(origin, "tag", "--delete", *git(origin, "tag").split())
    project = create(origin / "create_project.py", tmp_path / "shelf", str(origin))
    package = origin / "pyproject.toml"
    (origin / "CHANGELOG.md").write_text(NEWS, "utf-8")
    old = re.findall(r'^version = "(.+)"', package.read_text("utf-8"), re.M)[0]
    package.write_text(package.read_text("utf-8").replace(f'"{old}"', '"1001.0.0"', 1), "utf-8")
    release(origin)

    said = run("-m", "copier", "update", "--trust", "--defaults", project.path, **SKIP)

    assert re.search(
        rf"template: {re.escape(old)} \(\w{{7,}}\) -> 1001\.0\.0 \(\w{{7,}}\)", said
    ), said
    assert "[update] 1001.0.0: After updating: water the plants." in said
