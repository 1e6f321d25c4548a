"""A next release, made up here, that changes every shared file as real ones do."""

import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from copier import run_update
from copier.errors import TaskError
from plumbum import local

from tests.support.projects import ROOT, Project
from tests.support.revisions import template_head
from tests.update.conftest import Start, Update
from tests.update.edits import commit, fill, git, live_with, owners_lines, replace, rows

pytestmark = pytest.mark.slow

HEAD = "v1000.0.0"
NEXT = "v1001.0.0"
FIRST_WITH_GENERATORS = "v0.7.0"

PENS = '''
"""pens

Revises: {parent}
"""

import sqlalchemy as sa
from alembic import op

revision = "9999_pens"
down_revision = "{parent}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("pens", sa.Column("id", sa.Integer, primary_key=True))


def downgrade() -> None:
    op.drop_table("pens")
'''
CREATE = 'op.create_table("pens", sa.Column("id", sa.Integer, primary_key=True))'


CAPS_COMMAND = """@cli.command()
def caps() -> None:
    typer.echo("caps")
"""


@pytest.fixture
def next_template(template: Path, tmp_path: Path) -> Project:
    """A copy of the template in which the next release can be written."""
    shutil.copytree(template, tmp_path / "template")
    return Project(tmp_path / "template", {})


def release(template: Project, revision: str) -> None:
    """Add to each shared file where its neighbors are, and a migration."""
    file = "template/alembic/versions/9999_next.py"
    text = revision.lstrip().format(parent=template_head())
    (template.path / file).write_text(text)
    home, pens = "template/app/api/v1/home_router.py", "template/app/api/v1/caps_router.py"
    (template.path / pens).write_text(
        (template.path / home).read_text().replace('get("/")', 'get("/caps")')
    )
    line = "from app.api.v1.home_router"
    new = "from app.api.v1.caps_router import router as caps\n"
    replace(template, "template/app/api/routers.py.jinja", line, new + line)
    line = "    v1.include_router(home)\n"
    new = "    v1.include_router(caps)\n"
    replace(template, "template/app/api/routers.py.jinja", line, line + new)
    line = "\n\nload_settings = "
    replace(template, "template/app/settings.py.jinja", line, f"\n    caps: int = 3\n{line}")
    line = '    PERMISSIONS_WRITE = "permissions:write", "Grant and revoke permissions"\n'
    new = '    CAPS_READ = "caps:read", "See caps"\n'
    replace(template, "template/app/permissions.py", line, line + new)
    line = "PUBLIC_ROUTES = {\n"
    new = '    ("GET", "/api/v1/caps"),\n'
    replace(template, "template/app/permissions.py", line, line + new)
    line = "import Depends\n"
    replace(template, "template/app/api/deps.py.jinja", line, "import Depends, Request\n")
    line = '    "sqlalchemy'
    replace(template, "template/pyproject.toml.jinja", line, '    "packaging>=24",\n' + line)
    for file in ("constraints.txt.jinja", ".github/workflows/ci.yml"):
        raise_versions(template, f"template/{file}", "77")
    line = "      - run: $PROGRAMS/mypy\n"
    replace(template, "template/.github/workflows/ci.yml", line, line + "      - run: caps\n")
    line = "    app.state.settings = settings\n"
    replace(template, "template/app/main.py", line, f"{line}    app.state.caps = settings.caps\n")
    file = "template/app/cli.py.jinja"
    replace(template, file, "import app as project\n", "import typer\n\nimport app as project\n")
    replace(template, file, "def main() -> None:\n", f"{CAPS_COMMAND}\n\ndef main() -> None:\n")
    for file, text in {
        ".env.example": "# CAPS=3\n",
        ".gitignore": "/caps/\n",
        ".github/dependabot.yml": "# caps\n",
        "app/api/deps.py.jinja": "\n\nasync def get_caps(request: Request) -> object:\n"
        "    return request.app.state.caps\n",
        "tests/conftest.py": "\n\n@pytest.fixture\ndef caps() -> int:\n    return 3\n",
    }.items():
        with (template.path / "template" / file).open("a") as shared:
            shared.write(text)
    replace(template, "template/README.md.jinja", "## Map", "## Caps\n\nNew.\n\n## Map")
    commit(template, "Next")
    git(template.path, "tag", NEXT)


def raise_versions(project: Project, file: str, version: str) -> None:
    """As those do who keep libraries up to date."""
    text = project.read(file)
    text = re.sub(r"^(anyio|idna)==.*", rf"\1=={version}", text, flags=re.MULTILINE)
    text = re.sub(r"(setup-python)@.*", rf"\1@{version * 20} # v{version}", text)
    (project.path / file).write_text(text, "utf-8")


def test_what_owner_and_template_add_in_one_place_is_kept_of_both(
    next_template: Project, start: Start, update: Update
) -> None:
    project = start(HEAD, next_template.path)
    live_with(project)
    raise_versions(project, ".github/workflows/ci.yml", "88")
    raise_versions(project, "constraints.txt", "66")
    line = "      - run: $PROGRAMS/mypy\n"
    replace(project, ".github/workflows/ci.yml", line, line + "      - run: mine\n")
    commit(project, "Newer libraries")
    fill(project)
    kept, owned = rows(project), owners_lines(project)
    owned.pop("constraints.txt")
    release(next_template, PENS)

    update(project, NEXT)

    assert git(project.path, "ls-files", "--unmerged") == ""
    for file, lines in owned.items():
        text = project.read(file)
        assert [line for line in lines if line not in text] == [], file
    for file in sorted({*shared_files(), "app/main.py"} - {"constraints.txt", ".github"}):
        text = project.read(file)
        assert "<<<<<<<" not in text
        assert "caps" in text.casefold() or "packaging" in text, file
    assert "## Caps" not in project.read("README.md")
    assert "anyio==77\n" in project.read("constraints.txt")
    assert "idna==77\n" in project.read("constraints.txt")
    assert "      - run: caps\n      - run: mine\n" in project.read(".github/workflows/ci.yml")
    assert "9999_pens (head)" in project.succeed("alembic", "heads")
    said = project.succeed("alembic", "upgrade", "head")
    assert "Running upgrade 0002_year -> 9999_pens" in said
    assert rows(project) == kept
    for command in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        project.succeed(*command)


@pytest.mark.parametrize("version", [FIRST_WITH_GENERATORS, HEAD])
def test_a_generated_resource_is_kept_by_an_update_and_by_the_next_one_that_is_generated(
    next_template: Project, start: Start, update: Update, version: str
) -> None:
    project = start(version, next_template.path)
    git(project.path, "init", "--quiet")
    commit(project, "First")
    project.succeed("app", "generate", "resource", "Book", "title:str", "pages:int", "by:User")
    project.succeed("alembic", "upgrade", "head")
    commit(project, "Books")
    changed = git(project.path, "diff", "--name-only", "HEAD~").split()
    files = {name: project.read(name) for name in changed if "book" in name}
    release(next_template, PENS)

    update(project, NEXT)
    project.succeed("alembic", "upgrade", "head")
    commit(project, "Update")
    project.succeed("app", "generate", "resource", "Chapter", "book:Book", "title:str")
    project.succeed("alembic", "upgrade", "head")

    assert len(files) == 5
    assert {name: project.read(name) for name in files} == files
    for name, words in {
        "app/api/routers.py": ("include_router(book)", "(chapter)", "(caps)"),
        "app/permissions.py": ("BOOKS_READ", "CHAPTERS_READ", "CAPS_READ"),
    }.items():
        assert [word for word in words if word not in project.read(name)] == []
    project.succeed("alembic", "check")
    project.succeed("pytest", "-q", "tests/auth/test_books.py", "tests/auth/test_chapters.py")
    for command in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        project.succeed(*command)


def test_an_update_that_cannot_be_migrated_leaves_the_database_at_its_revision(
    next_template: Project, start: Start
) -> None:
    """The owner has renamed a table that the release alters."""
    project = start(HEAD, next_template.path)
    live_with(project)
    people = PENS.lstrip().format(parent="0002_year").replace("9999_pens", "0003_people")
    (project.path / "alembic/versions/0003_people.py").write_text(
        people.replace(CREATE, 'op.rename_table("users", "people")')
    )
    project.succeed("alembic", "upgrade", "head")
    # The last step of setup, in this environment.
    (project.path / "setup.sh").write_text(f"exec {sys.executable} -m alembic upgrade head\n")
    commit(project, "People")
    before = dump(project)
    release(next_template, PENS.replace(CREATE, 'op.execute("UPDATE users SET is_active = true")'))

    # Other tests skip setup. This one runs it.
    with local.env(COPIER_FASTAPI_SETUP="run"), pytest.raises(TaskError):
        run_update(
            project.path, vcs_ref=NEXT, defaults=True, overwrite=True, unsafe=True, quiet=True
        )

    assert dump(project) == before
    assert b"0003_people" in before
    assert git(project.path, "ls-files", "--unmerged") == ""


def test_with_a_conflict_the_database_is_left_alone_and_the_file_is_named(
    next_template: Project, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start(HEAD, next_template.path)
    live_with(project)
    replace(project, "app/core/logging.py", '"%H:%M:%S"', '"%d %H:%M"')
    commit(project, "Days")
    before = dump(project)
    replace(next_template, "template/app/core/logging.py", '"%H:%M:%S"', '"%H.%M.%S"')
    release(next_template, PENS)

    with pytest.raises(TaskError):
        run_update(
            project.path, vcs_ref=NEXT, defaults=True, overwrite=True, unsafe=True, quiet=True
        )

    said = capfd.readouterr().out
    assert "[update]     app/core/logging.py" in said
    assert "The database was not touched" in said
    assert git(project.path, "diff", "--name-only", "--diff-filter=U") == "app/core/logging.py\n"
    assert dump(project) == before
    # The migrations are in order, so only the file has to be fixed.
    assert "9999_pens (head)" in project.succeed("alembic", "heads")


def test_what_the_owner_changed_in_a_file_moves_along_when_the_release_renames_it(
    next_template: Project, start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start(HEAD, next_template.path)
    live_with(project)
    changed = owners_lines(project)["app/errors.py"]
    git(next_template.path, "mv", "template/app/errors.py", "template/app/api/problems.py")
    line = "from app.core.errors import AppError"
    replace(next_template, "template/app/api/problems.py", line, f"import decimal\n\n{line}")
    release(next_template, PENS)

    update(project, NEXT)

    assert "app/errors.py is now app/api/problems.py" in capfd.readouterr().out
    assert not project.has("app/errors.py")
    text = project.read("app/api/problems.py")
    assert [line for line in changed if line not in text] == []
    assert "import decimal" in text
    assert git(project.path, "ls-files", "--unmerged") == ""


def test_what_the_release_changes_in_a_file_arrives_where_the_owner_moved_it(
    next_template: Project, start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start(HEAD, next_template.path)
    live_with(project)
    git(project.path, "mv", "tests/test_guards.py", "tests/test_mine.py")
    replace(project, "tests/test_mine.py", '"""', '"""Mine: ')
    git(project.path, "rm", "--quiet", "tests/test_home.py")
    commit(project, "Moved")
    for file in ("tests/test_guards.py", "tests/test_home.py"):
        text = next_template.read(f"template/{file}")
        (next_template.path / "template" / file).write_text(f"{text}\n\nCAP = 1\n")
    release(next_template, PENS)

    update(project, NEXT)

    said = capfd.readouterr().out
    assert "tests/test_mine.py: has the template's changes of tests/test_guards.py" in said
    assert "tests/test_home.py: you deleted it, and the template changed it" in said
    assert "setup.bat" not in said
    text = project.read("tests/test_mine.py")
    assert text.startswith('"""Mine: ')
    assert text.endswith("\n\nCAP = 1\n")
    assert not project.has("tests/test_guards.py")
    assert not project.has("tests/test_home.py")
    assert git(project.path, "ls-files", "--unmerged") == ""


def test_a_moved_file_that_both_changed_in_one_line_is_a_conflict_where_it_is(
    next_template: Project, start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start(HEAD, next_template.path)
    live_with(project)
    git(project.path, "mv", "tests/test_guards.py", "tests/test_mine.py")
    replace(project, "tests/test_mine.py", '"""', '"""Mine: ')
    commit(project, "Moved")
    replace(next_template, "template/tests/test_guards.py", '"""', '"""Theirs: ')
    release(next_template, PENS)

    with pytest.raises(TaskError):
        update(project, NEXT)

    assert "[update]     tests/test_mine.py" in capfd.readouterr().out
    text = project.read("tests/test_mine.py")
    assert '"""Mine: ' in text
    assert '"""Theirs: ' in text
    hook = next_template.path / "hooks/post_update.py"
    again = subprocess.run(
        [sys.executable, hook, next_template.path, ""],
        cwd=project.path,
        check=False,
    )
    assert again.returncode == 1
    assert project.read("tests/test_mine.py") == text


def test_what_both_changed_in_a_renamed_file_is_a_conflict_under_its_new_name(
    next_template: Project, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start(HEAD, next_template.path)
    live_with(project)
    git(next_template.path, "mv", "template/app/errors.py", "template/app/api/problems.py")
    line = "The errors that routes raise."
    replace(project, "app/errors.py", line, "The errors of shelves.")
    commit(project, "Errors")
    replace(next_template, "template/app/api/problems.py", line, "The errors of routes.")
    release(next_template, PENS)

    with pytest.raises(TaskError):
        run_update(
            project.path, vcs_ref=NEXT, defaults=True, overwrite=True, unsafe=True, quiet=True
        )

    assert "[update]     app/api/problems.py" in capfd.readouterr().out
    text = project.read("app/api/problems.py")
    assert "The errors of shelves." in text
    assert "The errors of routes." in text
    unmerged = git(project.path, "diff", "--name-only", "--diff-filter=U")
    assert unmerged == "app/api/problems.py\n"


def test_a_file_that_the_release_drops_goes_and_the_update_shows_what_the_owner_changed(
    next_template: Project, start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start(HEAD, next_template.path)
    live_with(project)
    replace(project, "app/core/copy_database.py", "import hashlib", "import hashlib  # mine")
    replace(project, "tests/test_home.py", "\n\n\ndef ", f"\n\n\nPLACE = 1\n\n\n{OWN_TEST}def ")
    replace(project, "tests/test_home.py", "def test_home", "# Mine.\ndef test_home")
    commit(project, "Transfer")
    git(
        next_template.path,
        "rm",
        "--quiet",
        "template/app/core/copy_database.py",
        "template/app/core/checks.py",
        "template/tests/test_home.py",
    )
    release(next_template, PENS)

    update(project, NEXT)

    said = capfd.readouterr().out
    assert (
        "[update] app/core/copy_database.py: the template no longer has it. These changes of "
        "yours are gone (git has them):\n"
        "[update]     -import hashlib\n[update]     +import hashlib  # mine\n"
    ) in said
    assert "tests/test_home.py: the template no longer has it; what you added to it stays" in said
    assert "[update]     +# Mine.\n" in said
    assert (
        project.read("tests/test_home.py")
        == f"{KEPT_IMPORT}PLACE = 1\n\n\n{OWN_TEST}".rstrip() + "\n"
    )
    assert not project.has("app/core/copy_database.py")
    assert not project.has("app/core/checks.py")
    assert git(project.path, "ls-files", "--unmerged") == ""


KEPT_IMPORT = "from fastapi.testclient import TestClient\n\n\n"
OWN_TEST = "def test_mine(client: TestClient) -> None:\n    assert PLACE == 1\n\n\n"


def test_two_ends_of_the_owners_own_are_named_and_not_guessed_at(
    next_template: Project,
    start: Start,
    update: Update,
    capfd: pytest.CaptureFixture[str],
) -> None:
    project = start(HEAD, next_template.path)
    live_with(project)
    fork = PENS.lstrip().format(parent="0001_book").replace("9999_pens", "0002_fork")
    (project.path / "alembic/versions/0002_fork.py").write_text(fork)
    commit(project, "Fork")
    release(next_template, PENS)

    with pytest.raises(TaskError):
        update(project, NEXT)

    said = capfd.readouterr().out
    assert "migrations have several heads (0002_fork, 0002_year), so nothing was migrated." in said
    assert f'down_revision = "{template_head()}"' in project.read("alembic/versions/9999_next.py")


def shared_files() -> list[str]:
    config = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))
    files: list[str] = config["shared"]["default"]
    return files


def dump(project: Project) -> bytes:
    with closing(sqlite3.connect(project.path / "app.db")) as connection:
        # iterdump() cannot read a full-text index without content.
        return connection.serialize()


def test_an_update_that_was_killed_and_committed_is_not_built_upon(
    next_template: Project, start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    """Killed as soon as Copier has written the answers: the owner's changes are not back by then."""
    project = start(HEAD, next_template.path)
    live_with(project)
    before = git(project.path, "rev-parse", "HEAD").strip()
    release(next_template, PENS)
    copier = [sys.executable, "-m", "copier", "update", "--trust", "--defaults"]
    with subprocess.Popen(copier, cwd=project.path, stdout=subprocess.DEVNULL) as process:
        while NEXT not in project.read(".copier-answers.yml") and process.poll() is None:
            time.sleep(0.001)
        process.kill()
    assert git(project.path, "status", "--porcelain") != ""
    commit(project, "What Copier asks for")

    with pytest.raises(TaskError):
        update(project, NEXT)

    said = capfd.readouterr().out
    assert "[update] an earlier update was interrupted" in said
    assert before[:10] in said
    assert git(project.path, "status", "--porcelain") == ""
    git(project.path, "reset", "--quiet", "--hard", before)
    update(project, NEXT)
    assert git(project.path, "ls-files", "--unmerged") == ""
    assert "class Gone(AppError)" in project.read("app/errors.py")


def test_git_that_hides_new_files_stops_the_update_before_it_loses_lines(
    next_template: Project, start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start(HEAD, next_template.path)
    live_with(project)
    release(next_template, PENS)
    git(project.path, "config", "status.showUntrackedFiles", "no")

    with pytest.raises(TaskError):
        update(project, NEXT)

    assert "git config --local status.showUntrackedFiles normal" in capfd.readouterr().out
    assert git(project.path, "status", "--porcelain", "--untracked-files=all") == ""


@pytest.mark.parametrize(
    ("name", "scope", "hint"),
    [
        ("übersicht.md", "global", "git config --global core.quotePath true"),
        ("ü.log", "local", "git config --local core.quotePath true"),
        ("ü.log", "system", "git config --system core.quotePath true"),
        ("\udcff.md", None, "\\xff.md"),
        ("\udcff.log", None, "\\xff.log"),
    ],
    ids=["tracked", "ignored", "for all users", "not UTF-8", "ignored and not UTF-8"],
)
def test_a_name_that_copier_cannot_read_stops_the_update_before_it_loses_lines(
    next_template: Project,
    start: Start,
    update: Update,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    scope: str | None,
    hint: str,
) -> None:
    project = start(HEAD, next_template.path)
    git(project.path, "init", "--quiet")
    with (project.path / ".gitignore").open("a") as ignored:
        ignored.write("*.log\n")
    (project.path / "app" / name).write_text("x\n")
    commit(project, "A file")
    release(next_template, PENS)
    files = {name: tmp_path / name for name in ("global", "system")}
    files["global"].write_text("[user]\n    name = Ada\n    email = ada@example.com\n")
    files["local"] = project.path / ".git/config"
    if scope:
        with files[scope].open("a") as settings:
            settings.write("[core]\n    quotePath = false\n")

    with (
        local.env(GIT_CONFIG_GLOBAL=str(files["global"]), GIT_CONFIG_SYSTEM=str(files["system"])),
        pytest.raises(TaskError),
    ):
        update(project, NEXT)

    assert hint in capfd.readouterr().out
    assert git(project.path, "status", "--porcelain", "--untracked-files=all") == ""


def test_bytes_of_the_owner_that_are_not_utf_8_stay_as_they_are(
    next_template: Project, start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    """Copier drops them from the owner's changes, and drops changes of files with a NUL byte."""
    project = start(HEAD, next_template.path)
    live_with(project)
    latin = {
        "alembic.ini": b"# gr\xfc\xdfe\n",
        # The template changes what is next to this line.
        ".gitignore": b"/b\xfccher/\n",
    }
    for file, line in latin.items():
        with (project.path / file).open("ab") as text:
            text.write(line)
    # PowerShell writes UTF-16.
    wide = {name: project.read(name).encode("utf-16") for name in ("compose.yaml", "AGENTS.md")}
    for file, content in wide.items():
        (project.path / file).write_bytes(content)
    commit(project, "Gr\xfc\xdfe")
    for file in ("alembic.ini", "compose.yaml.jinja"):
        template_file = next_template.path / "template" / file
        template_file.write_text("# caps\n" + template_file.read_text("utf-8"), "utf-8")
    release(next_template, PENS)

    with pytest.raises(TaskError):
        update(project, NEXT)

    for file, line in latin.items():
        assert line in (project.path / file).read_bytes()
    assert (project.path / "alembic.ini").read_bytes().startswith(b"# caps\n")
    assert b"/caps/\n" in (project.path / ".gitignore").read_bytes()
    for file, content in wide.items():
        assert (project.path / file).read_bytes() == content
    said = capfd.readouterr().out
    assert said.split("Merge conflicts in:\n")[1].split("\n")[0] == "[update]     compose.yaml"


def test_the_update_says_where_it_went_and_what_is_left_to_do(
    next_template: Project, start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start("v0.2.0", next_template.path)
    live_with(project)

    update(project, HEAD)

    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("[update]")]
    assert any(line.startswith(f"[update] template: v0.2.0 -> {HEAD}, ") for line in said)
    notes = [line for line in said if ": After updating: " in line]
    assert [note.split(":")[0] for note in notes[:2]] == ["[update] 0.3.0", "[update] 0.4.0"]
