"""The steps and recipes of a project's docs/developing.md, followed as written."""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.render.test_project_documents import CREATED, DEVELOPING, code_blocks
from tests.support.projects import ROOT, Generate, Project

pytestmark = pytest.mark.slow

PASSWORD = "seven wet otters on a raft\n"


def insert(file: Path, before: str, text: str) -> None:
    source = file.read_text("utf-8")
    assert before in source
    file.write_text(source.replace(before, f"{text}{before}", 1), "utf-8")


@pytest.fixture(params=[True, False], ids=["auth", "plain"])
def shelf(request: pytest.FixtureRequest, generate: Generate, tmp_path: Path) -> Project:
    """A project in which everything of the document has been done, up to the migration."""
    answers = {"auth": request.param, "github": True}
    shutil.copytree(generate(**answers).path, tmp_path / "shelf")
    project = Project(tmp_path / "shelf", answers)
    project.succeed("alembic", "upgrade", "head")
    blocks = code_blocks(project.read(DEVELOPING))
    routers = project.path / "app/api/routers.py"
    for block in blocks:
        if match := CREATED.match(block):
            file = project.path / match[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.partition("\n")[2], "utf-8")
            if match[1].startswith("app/api/v1/"):
                insert(routers, "from app.core.health", f"from app.api.v1 import {file.stem}\n")
                insert(
                    routers,
                    "\n    app.include_router(v1)",
                    f"    v1.include_router({file.stem}.router)\n",
                )
        elif re.match(r"[A-Z_]+ = \"", block):
            insert(project.path / "app/permissions.py", "    USERS_READ =", f"    {block}")
        elif block.startswith("app.mount("):
            routers.write_text(routers.read_text("utf-8") + f"    {block}", "utf-8")
            insert(routers, "from app.settings", "from app.core.settings import PROJECT_FOLDER\n")
            insert(routers, "from app.settings", "from app.static_files import CachedFiles\n")
        elif block.startswith("@cli.command()"):
            cli = project.path / "app/cli.py"
            insert(cli, "def main()", f"{block}\n\n")
            insert(cli, "import app as project", "import typer\n")
            insert(cli, "from app.settings", "from app.core.commands import run\n")
        elif block.startswith("theme: Mapped"):
            insert(project.path / "app/models/user.py", "    is_active:", f"    {block}")
            insert(
                project.path / "app/schemas/user.py", "    is_active: bool\n", "    theme: str\n"
            )
        elif block.startswith(("shelf: str", "covers: Path")):
            insert(project.path / "app/settings.py", "\n\nload_settings", f"\n    {block}")
    insert(
        project.path / "app/settings.py",
        "from app.core.settings",
        "from pathlib import Path\nfrom app.core.settings import PROJECT_FOLDER\n",
    )
    if answers["auth"]:
        insert(
            project.path / "app/permissions.py",
            '    ("GET", "/health/live")',
            '    ("MOUNT", "/static"),\n    ("GET", "/api/v1/greeting"),\n',
        )
    (project.path / "static").mkdir()
    project.succeed("ruff", "check", "--quiet", "--fix")
    return project


def test_the_steps_of_the_documents_work(shelf: Project) -> None:
    shelf.succeed("alembic", "revision", "-m", "add book", "--autogenerate")
    shelf.succeed("alembic", "upgrade", "head")

    assert "Added Emma." in shelf.succeed("app", "add-book", "Emma", "474")
    shelf.succeed("ruff", "check")
    shelf.succeed("ruff", "format", "--check")
    shelf.succeed("mypy")
    shelf.succeed("pytest", "-q", "tests")
    # Commands work in every folder.
    in_docs = Project(shelf.path / "docs", shelf.answers)
    in_docs.succeed("app", "check", PYTHONPATH=str(shelf.path))
    if shelf.answers["auth"]:
        shelf.succeed("app", "user", "create", "ada", "ada@example.com", stdin=PASSWORD)
        granted = shelf.succeed("app", "permission", "grant", "ada", "books:write")
        assert "ada holds books:write." in granted
        with closing(sqlite3.connect(shelf.path / "app.db")) as connection:
            assert connection.execute("SELECT theme FROM users").fetchall() == [("light",)]


def migration_recipes(shelf: Project) -> list[str]:
    return [b for b in code_blocks(shelf.read(DEVELOPING)) if b.startswith("def upgrade")]


def test_the_recipes_of_batches_run(shelf: Project) -> None:
    shelf.succeed("alembic", "revision", "-m", "add book", "--autogenerate")
    shelf.succeed("alembic", "upgrade", "head")
    shelf.succeed("app", "add-book", "Emma", "474")
    _, index = migration_recipes(shelf)
    (ids,) = code_blocks((ROOT / "docs/upgrading.md").read_text("utf-8"))

    for name, body in (("index", index), ("numbers", ids)):
        shelf.succeed("alembic", "revision", "-m", name)
        (file,) = shelf.path.glob(f"alembic/versions/*_{name}.py")
        file.write_text(file.read_text("utf-8").partition("def upgrade")[0] + body, "utf-8")
        shelf.succeed("alembic", "upgrade", "head")

    with closing(sqlite3.connect(shelf.path / "app.db")) as connection:
        assert connection.execute("SELECT title, page_count FROM books").fetchall() == [
            ("Emma", 474)
        ]
        assert connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'books'").fetchall()


def test_a_renamed_column_keeps_its_data(shelf: Project) -> None:
    shelf.succeed("alembic", "revision", "-m", "add book", "--autogenerate")
    shelf.succeed("alembic", "upgrade", "head")
    shelf.succeed("app", "add-book", "Emma", "474")
    for file in shelf.path.joinpath("app").rglob("*.py"):
        if "core" not in file.parts and "auth" not in file.parts:
            source = file.read_text("utf-8")
            file.write_text(re.sub(r"\bpages\b", "page_count", source), "utf-8")
    shelf.succeed("alembic", "revision", "-m", "rename pages", "--autogenerate")
    (migration,) = shelf.path.glob("alembic/versions/*_rename_pages.py")
    recipe = migration_recipes(shelf)[0]
    head = migration.read_text("utf-8").partition("def upgrade")[0]
    migration.write_text(head + recipe, "utf-8")

    for command in ("upgrade head", "downgrade -1", "upgrade head", "check"):
        shelf.succeed("alembic", *command.split())

    assert "Added Ulysses." in shelf.succeed("app", "add-book", "Ulysses", "700")
    with closing(sqlite3.connect(shelf.path / "app.db")) as connection:
        rows = connection.execute("SELECT title, page_count FROM books").fetchall()
    assert rows == [("Emma", 474), ("Ulysses", 700)]
