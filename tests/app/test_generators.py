"""`generate resource`: what it writes passes every check at once, and costs few lines."""

import ast
import hashlib
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.projects import Generate, Project
from tests.update.edits import git

pytestmark = pytest.mark.slow

BOOK = ["Book", "title:str:unique", "pages:int", "price:decimal", "published:date?", "author:User"]
RESOURCES = [
    [*BOOK, "blurb:text?", "state:draft|listed|sold:default=draft"],
    ["Chapter", "book:Book", "title:str", "position:int:index", "--nested-in", "book"],
    # Every type, words of SQL as columns, a reference to itself and a unique one.
    [
        "NewsItem",
        "title:str:default=a:b",
        "order:text",
        "n:bigint:unique",
        "ok:bool:default=false",
        "weight:float:index",
        "cost:decimal:default=1.50:index",
        "day:date:default=2026-01-01",
        "at:datetime:index",
        "key:uuid:unique",
        "select:json?",
        "meta:json",
        "is_new:bool:index",
        "parent:NewsItem?",
        "book:Book:unique",
        "size:big|small?",
        "books:Book*",
    ],
]
OF_USERS = [
    ["Person", "name:str", "owner:User", "--owned-by", "owner", "--public", "--soft-delete"],
    ["Category", "name:str", "--public", "--no-tests"],
    [
        "Part",
        "book:Book",
        "owner:User",
        "name:str:index",
        "--owned-by",
        "owner",
        "--nested-in",
        "book",
        "--soft-delete",
    ],
]


def snapshot(project: Project) -> dict[str, str]:
    files = (f for f in project.files() if ".git" not in f.parts and ".ruff_cache" not in f.parts)
    return {str(f): hashlib.sha256((project.path / f).read_bytes()).hexdigest() for f in files}


def generate_resource(project: Project, *arguments: str) -> str:
    return project.succeed("app", "generate", "resource", *arguments)


def commit(project: Project) -> None:
    git(project.path, "add", "--all")
    git(project.path, "commit", "--quiet", "-m", "More")


@pytest.fixture
def repository(generate: Generate, tmp_path: Path) -> Callable[..., Project]:
    def create(**answers: bool) -> Project:
        project = Project(tmp_path / "project", answers)
        shutil.copytree(generate(**answers).path, project.path)
        git(project.path, "init", "--quiet")
        commit(project)
        return project

    return create


def check_everything(project: Project) -> None:
    for command in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        project.succeed(*command, RUFF_NO_CACHE="true")


@pytest.mark.parametrize("auth", [True, False], ids=["auth", "plain"])
def test_generated_resources_pass_every_check_at_once(
    repository: Callable[..., Project], auth: bool, report: Callable[[str], None]
) -> None:
    project = repository(auth=auth)
    before = snapshot(project)
    started = time.monotonic()
    resources = [*RESOURCES, *(OF_USERS if auth else [])]

    for arguments in resources:
        known = [a for a in arguments if auth or a != "author:User"]
        assert "alembic upgrade head" in generate_resource(project, *known)
        commit(project)

    seconds = (time.monotonic() - started) / len(resources)
    report(f"a resource in {seconds:.1f} s, committed")
    check_everything(project)
    tests = sorted(str(file) for file in project.files() if str(file) not in before)
    tests = [file for file in tests if file.startswith("tests/") and file.endswith(".py")]
    guards = ["tests/test_guards.py", *(["tests/auth/test_guards.py"] if auth else [])]
    assert " passed" in project.succeed("pytest", "-q", *tests, *guards)
    if auth:
        with postgres.running() as server:
            url = server.url()
            assert " passed" in project.succeed(
                "pytest", "-q", "tests/auth/test_news_items.py", TEST_DATABASE_URL=url
            )
    # Nothing but lines at the merge points.
    changed = {file for file, text in before.items() if snapshot(project).get(file) != text}
    assert changed == {"app/api/routers.py"} | ({"app/permissions.py"} if auth else set())


def test_a_resource_is_short_and_a_command_that_fails_changes_nothing(
    repository: Callable[..., Project], report: Callable[[str], None]
) -> None:
    project = repository(auth=True)
    before = snapshot(project)

    dry = generate_resource(project, *BOOK, "--dry-run")
    assert "+class Book(Base):" in dry
    assert "+    v1.include_router(book)" in dry
    assert "op.create_table('books'" in dry
    assert snapshot(project) == before

    (project.path / "notes.txt").write_text("mine", "utf-8")
    refused = project.run("app", "generate", "resource", *BOOK)
    assert refused.returncode == 1
    assert "commit or stash your changes first" in refused.stderr
    file = project.path / "app/schemas/book.py"
    file.write_text("MINE = 1\n", "utf-8")
    refused = project.run("app", "generate", "resource", *BOOK, "--force")
    assert refused.returncode == 1
    assert "app/schemas/book.py exists; nothing of yours is replaced" in refused.stderr
    file.unlink()
    (project.path / "notes.txt").unlink()
    assert snapshot(project) == before

    generate_resource(project, *BOOK)
    files = ["app/models/book.py", "app/schemas/book.py", "app/api/v1/book_router.py"]
    written = [line for file in files for line in project.read(file).splitlines() if line.strip()]
    imports = sum(
        (node.end_lineno or 0) - node.lineno + 1
        for file in files
        for node in ast.parse(project.read(file)).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    )
    report(f"five fields: {len(written) - imports} lines, and {imports} of imports")
    assert len(written) - imports <= 70


def test_a_field_is_added_for_rows_that_exist(repository: Callable[..., Project]) -> None:
    project = repository(auth=True)
    generate_resource(project, "Book", "title:str:unique", "pages:int")
    commit(project)
    project.succeed("alembic", "upgrade", "head")
    file = project.path / "app.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("INSERT INTO books (title, pages) VALUES ('Atlas', 3)")

    for field in ["subtitle:str?", "state:draft|sold:default=draft", "stock:int:default=0:index"]:
        project.succeed("app", "generate", "field", "Book", field)
        commit(project)
    shown = project.succeed("app", "generate", "field", "User", "nickname:str?")
    commit(project)
    for arguments in (
        ["permission", "books:lend", "Lend books"],
        ["setting", "shelf:str:default=oak"],
        ["command", "import-books", "folder:str", "limit:int"],
    ):
        project.succeed("app", "generate", *arguments)
        commit(project)

    assert "in UserCreate: nickname: ShortText | None = None" in shown
    project.succeed("alembic", "upgrade", "head")
    project.succeed("alembic", "check")
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT * FROM books").fetchall() == [
            (1, "Atlas", 3, None, "draft", 0)
        ]
    check_everything(project)
    tests = ["tests/auth/test_books.py", "tests/test_guards.py", "tests/auth/test_guards.py"]
    assert " passed" in project.succeed("pytest", "-q", *tests)
    assert 'shelf: str = "oak"' in project.read("app/settings.py")
    assert "# SHELF=oak" in project.read(".env.example")
    assert 'BOOKS_LEND = "books:lend", "Lend books"' in project.read("app/permissions.py")
    assert "Done." in project.succeed("app", "import-books", "folder", "3")


def test_the_templates_of_an_owner_are_used(repository: Callable[..., Project]) -> None:
    project = repository(auth=False)
    template = project.path / "generators/model.py.j2"
    text = template.read_text("utf-8").replace("(Base):\n", '(Base):\n    """House style."""\n\n')
    template.write_text(text, "utf-8")
    commit(project)

    generate_resource(project, "Book", "title:str", "--no-tests")

    assert '"""House style."""' in project.read("app/models/book.py")


def test_what_the_server_runs_with_has_no_generator(generate: Generate, tmp_path: Path) -> None:
    """Neither the package that production installs, nor the modules of the server."""
    project = Project(Path(shutil.copytree(generate().path, tmp_path / "project")), {})
    code = "import sys, app.main, app.cli; print(*(m for m in sys.modules if m.startswith('generators')))"
    (project.path / "probe.py").write_text(code, "utf-8")
    names = project.succeed("probe").split()

    assert names == []
    packages = re.search(r"include = \[(.*)\]", project.read("pyproject.toml"))
    assert packages
    assert packages[1] == '"app*"'
    shutil.rmtree(project.path / "generators")
    refused = project.run("app", "generate", "resource", "Book", "title:str")
    assert refused.returncode == 1
    assert "production does without it" in refused.stderr
    assert os.linesep in refused.stderr
