"""What create_project.py rejects: one line, an exit code, and nothing changed."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.machines import Machine
from tests.support.projects import ROOT, clean_environment
from tools.address import declared

Create = Callable[..., tuple[int, str]]


@pytest.fixture
def create(checkout: Path, folder: Path) -> Create:
    """Run create_project.py with this environment's Copier, without the slow steps of setup."""

    def run(
        *arguments: str | Path, script: Path | None = None, cwd: Path = folder, **environment: str
    ) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, script or checkout / "create_project.py", *arguments],
            cwd=cwd,
            env={**clean_environment(), **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stderr

    return run


# Setup prefers uv, which this environment has. Offline and without a cache, it fails at once.
TOOLS = Path(sys.executable).parent
OFFLINE = {
    "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
    "UV_OFFLINE": "1",
    "UV_NO_CACHE": "1",
}


def is_one_line(said: str) -> bool:
    return len(said.strip().splitlines()) == 1 and "Traceback" not in said


def test_a_full_folder_is_left_as_it_is(create: Create, folder: Path) -> None:
    (folder / "shelf").mkdir()
    (folder / "shelf/mine.txt").write_text("mine")

    code, said = create("shelf")

    assert code == 1
    assert is_one_line(said)
    assert "is not empty. Choose another folder." in said
    assert [path.name for path in (folder / "shelf").iterdir()] == ["mine.txt"]


def test_a_file_in_the_way_is_left_as_it_is(create: Create, folder: Path) -> None:
    (folder / "shelf").write_text("mine")

    code, said = create("shelf")

    assert (code, is_one_line(said)) == (1, True)
    assert (folder / "shelf").read_text() == "mine"


def test_a_folder_beneath_a_file_is_refused(create: Create, folder: Path) -> None:
    (folder / "shelf").write_text("mine")

    code, said = create("shelf/books")

    assert (code, is_one_line(said)) == (1, True)
    assert "is not a writable folder" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--name", "{{ shelf }}", "x"], "project_name: Remove quotes"),
        (["2048"], "project_name: Use at least one letter in the name, such as Book Shelf."),
        (["a'b"], "project_name: Remove quotes"),
        (["--data", "project_description=", "x"], "project_description: Describe the app"),
        (["--data", "atuh=no", "x"], "the template has no question 'atuh'."),
        (["--data", "auth=vielleicht", "x"], "auth: answer yes or no, not 'vielleicht'."),
    ],
)
def test_an_invalid_answer_is_reported_with_a_valid_one(
    create: Create, folder: Path, arguments: list[str], sentence: str
) -> None:
    code, said = create(*arguments)

    assert (code, is_one_line(said)) == (1, True), said
    assert sentence in said
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="the machine is made of links")
def test_a_machine_without_git_is_told_to_install_it(
    machine: Machine, checkout: Path, folder: Path
) -> None:
    machine.remove("git")

    code, said = machine.run("python3", checkout / "create_project.py", "shelf", cwd=folder)

    assert (code, is_one_line(said)) == (1, True)
    assert "git was not found" in said
    assert list(folder.iterdir()) == []


def test_an_empty_folder_stays_empty_until_an_answer_is_valid(create: Create, folder: Path) -> None:
    assert create(".", "--data", "auth=nein")[0] == 1
    assert list(folder.iterdir()) == []

    assert create(".", "--data", "auth=no", **OFFLINE)[0] == 3

    assert (folder / "app/main.py").exists()
    assert not (folder / "app/auth").exists()
    assert not list(folder.glob(".create-*"))


def test_a_project_is_not_created_inside_the_template(create: Create, checkout: Path) -> None:
    code, said = create(checkout / "template/shelf")

    assert (code, is_one_line(said)) == (1, True)
    assert "is inside the template." in said


@pytest.mark.parametrize("inside", ["", "docs"])
def test_from_inside_the_template_the_project_is_created_next_to_it(
    create: Create, checkout: Path, tmp_path: Path, inside: str
) -> None:
    template = Path(shutil.copytree(checkout, tmp_path / "template"))
    script = template / "create_project.py"

    code, said = create("shelf", script=script, cwd=template / inside, **OFFLINE)

    assert code == 3, said
    assert (tmp_path / "shelf/app/main.py").exists()
    assert not list(template.rglob("shelf"))


def test_a_copied_script_uses_the_published_template(
    create: Create, checkout: Path, folder: Path
) -> None:
    script = folder / "create_project.py"
    text = (ROOT / "create_project.py").read_text("utf-8")
    script.write_text(text.replace(declared(), f"git+file://{checkout}"), "utf-8")

    code, said = create("shelf", script=script, **OFFLINE)

    assert code == 3, said
    assert f"_src_path: git+file://{checkout}" in (folder / "shelf/.copier-answers.yml").read_text()


def test_a_copied_script_asks_where_the_template_is(create: Create, folder: Path) -> None:
    script = Path(shutil.copy(ROOT / "create_project.py", folder))

    code, said = create("shelf", script=script)

    assert (code, is_one_line(said)) == (1, True)
    assert "--template PATH_OR_URL" in said


def test_a_project_inside_a_project_is_refused(create: Create, folder: Path) -> None:
    (folder / ".copier-answers.yml").touch()

    code, said = create("shelf")

    assert (code, is_one_line(said)) == (1, True)
    assert "is inside a generated project" in said


def test_of_two_parallel_runs_one_creates_the_project_and_the_other_fails(
    checkout: Path, folder: Path
) -> None:
    command = [sys.executable, str(checkout / "create_project.py"), "shelf"]
    both = [
        subprocess.Popen(
            command,
            cwd=folder,
            env={**clean_environment(), **OFFLINE},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = {process.communicate(timeout=120)[1]: process.returncode for process in both}

    # 3: created, but setup failed.
    assert sorted(said.values()) == [1, 3], said
    assert is_one_line(next(text for text, code in said.items() if code == 1))
    assert (folder / "shelf/app/main.py").exists()
    assert [path.name for path in folder.iterdir()] == ["shelf"]


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_a_place_without_a_template_is_reported(create: Create, place: str) -> None:
    code, said = create("shelf", "--template", place)

    assert (code, is_one_line(said)) == (1, True)
    assert "template" in said


def test_an_old_python_gets_a_message_instead_of_a_syntax_error() -> None:
    """The file must parse on an old Python in order to print the message."""
    source = (ROOT / "create_project.py").read_text("utf-8")
    ast.parse(source, feature_version=(3, 7))
    pretend = "import runpy, sys; sys.version_info = (3, 10, 13); sys.argv[1:] = ['x']; "

    told = subprocess.run(
        [sys.executable, "-c", f"{pretend} runpy.run_path({str(ROOT / 'create_project.py')!r})"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert told.returncode == 1
    assert is_one_line(told.stderr)
    assert "needs Python 3.11 or newer. This is Python 3.10." in told.stderr


@pytest.mark.skipif(os.name == "nt", reason="looks for pyenv, which Windows lacks")
def test_real_old_pythons_get_the_message_too() -> None:
    old = [*Path.home().glob(".pyenv/versions/3.[6-9]*/bin/python3")]
    old += Path.home().glob(".pyenv/versions/3.10*/bin/python3")
    if not old:
        pytest.skip("this machine has no older Python; the test above imitates one")
    for interpreter in old:
        told = subprocess.run(
            [interpreter, ROOT / "create_project.py", "x"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 1
        assert "needs Python 3.11 or newer" in told.stderr
        assert is_one_line(told.stderr)


def test_uncommitted_changes_of_the_template_are_left_out_so_that_updates_work(
    checkout: Path, create: Create, folder: Path, tmp_path: Path
) -> None:
    dirty = tmp_path / "dirty"
    shutil.copytree(checkout, dirty)
    (dirty / "template/setup.sh").write_text("exit 1\n")
    (dirty / "own-project").mkdir()
    (dirty / "own-project/file").touch()
    head = subprocess.run(
        ["git", "-C", dirty, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout

    # Setup stops early: this test is about what was rendered.
    code, said = create("shelf", "--template", str(dirty), **OFFLINE)

    assert code == 3, said
    assert (folder / "shelf/setup.sh").read_text().startswith("#!/bin/sh")
    # Read as YAML: a commit of digits only is quoted.
    answers = yaml.safe_load((folder / "shelf/.copier-answers.yml").read_text())
    assert answers["_commit"]
    assert head.startswith(answers["_commit"])
    assert answers["_src_path"] == str(dirty)


def test_a_new_clone_that_only_has_its_git_folder_is_filled(create: Create, folder: Path) -> None:
    """As after cloning an empty repository."""
    subprocess.run(["git", "init", "-q", folder / "shelf"], check=True)

    code, said = create("shelf", **OFFLINE)

    assert code == 3, said
    assert (folder / "shelf/.git/HEAD").exists()
    assert (folder / "shelf/app/main.py").exists()


def test_modules_of_the_current_folder_are_not_executed(create: Create, folder: Path) -> None:
    for name in ("yaml", "jinja2", "copier", "venv", "argparse"):
        (folder / f"{name}.py").write_text("raise SystemExit('executed')\n")

    code, said = create("shelf", **OFFLINE)

    assert code == 3, said
    assert "executed" not in said


@pytest.mark.parametrize("place", ["file:///nowhere/template", "https://localhost:9/template.git"])
def test_an_address_without_a_template_is_reported_in_one_line(create: Create, place: str) -> None:
    code, said = create("shelf", "--template", place)

    assert (code, is_one_line(said)) == (1, True), said
    assert place.removeprefix("file://") in said


@pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="changes the owner of files")
def test_a_template_of_another_user_is_refused_with_what_to_do(
    checkout: Path, create: Create, tmp_path: Path
) -> None:
    foreign = Path(shutil.copytree(checkout, tmp_path / "foreign"))
    for file in (foreign, *foreign.rglob("*")):
        os.chown(file, 12345, 12345, follow_symlinks=False)

    code, said = create("shelf", "--template", str(foreign))

    assert (code, is_one_line(said)) == (1, True), said
    assert f"git config --global --add safe.directory {foreign}" in said
