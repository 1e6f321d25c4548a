"""`generate resource`: what it writes passes every check at once, and costs few lines."""

import ast
import hashlib
import os
import re
import shlex
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.render.test_project_documents import DEVELOPING, code_blocks
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
        "--search",
        "title,order",
    ],
]
OF_USERS = [
    [
        "Person",
        "name:str",
        "email:str:unique",
        "text:text",
        "owner:User",
        "--owned-by",
        "owner",
        "--public",
        "--soft-delete",
    ],
    # A part of what may be deleted.
    ["Visit", "person:Person", "place:str", "--nested-in", "person"],
    ["Photo", "visit:Visit", "name:str", "--nested-in", "visit"],
    ["Category", "name:str", "--public", "--total", "exact"],
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
        "--total",
        "estimated",
    ],
]

CONDUIT = [
    ["Tag", "name:str:unique", "--public"],
    [
        "Article",
        "slug:str:unique",
        "title:str",
        "description:str",
        "body:text",
        "author:User",
        "tags:Tag*",
        "--owned-by",
        "author",
        "--public",
    ],
    [
        "Comment",
        "article:Article",
        "author:User",
        "body:text",
        "--owned-by",
        "author",
        "--nested-in",
        "article",
        "--public",
    ],
    ["Favorite", "user:User", "article:Article", "--owned-by", "user", "--no-tests"],
    ["Follow", "follower:User", "followed:User", "--owned-by", "follower"],
    ["Note", "text:text", "--soft-delete", "--search", "text"],
]
FEED_IMPORT = "from app.api.v1.feed_router import router as feed\n"
FEED = '''from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import func, select

from app.api.deps import CurrentUser, IdPath, PageDep, SessionDep
from app.core.pagination import Page, paginate
from app.core.routing import Router
from app.models.article import Article
from app.models.favorite import Favorite
from app.models.follow import Follow
from app.models.tag import Tag
from app.schemas.article import ArticleRead

router = Router(prefix="/feed", tags=["feed"])


class Favorites(BaseModel):
    count: int
    is_favorite: bool


@router.get("", response_model=Page[ArticleRead])
async def read_feed(
    user: CurrentUser, page: PageDep, session: SessionDep, tag: str | None = Query(None)
) -> Page[Article]:
    """List articles by users whom you follow, or all articles with a tag."""
    followed = select(Follow.followed_id).where(Follow.follower_id == user.user_id)
    found = Article.author_id.in_(followed) if tag is None else Article.tags.any(Tag.name == tag)
    return await paginate(session, select(Article).where(found), page, order="-id")


@router.get("/favorites/{article_id:id}", response_model=Favorites)
async def count_favorites(article_id: IdPath, user: CurrentUser, session: SessionDep) -> Favorites:
    of_article = select(func.count()).where(Favorite.article_id == article_id)
    count = await session.scalar(of_article) or 0
    yours = await session.scalar(of_article.where(Favorite.user_id == user.user_id))
    return Favorites(count=count, is_favorite=bool(yours))
'''
CONDUIT_TEST = """from fastapi.testclient import TestClient

from app.permissions import PermissionName
from tests.auth.conftest import LogIn, MakeUser


def test_a_reader_follows_an_author(
    client: TestClient, make_user: MakeUser, log_in: LogIn
) -> None:
    ada_id = make_user("ada", PermissionName.TAGS_WRITE)
    make_user("bob")
    ada, bob = log_in("ada"), log_in("bob")
    tag = client.post("/api/v1/tags", json={"name": "sea"}, headers=ada).json()["id"]
    text = {"slug": "a", "title": "A", "description": "About", "body": "It was", "tag_ids": [tag]}
    article = client.post("/api/v1/articles", json=text, headers=ada).json()["id"]
    follow, favorite = {"followed_id": ada_id}, {"article_id": article}
    assert client.get("/api/v1/feed", headers=bob).json()["items"] == []

    assert client.post("/api/v1/follows", json=follow, headers=bob).status_code == 201
    assert client.post("/api/v1/follows", json=follow, headers=bob).status_code == 409
    assert client.post("/api/v1/favorites", json=favorite, headers=bob).status_code == 201
    comments = f"/api/v1/articles/{article}/comments"
    assert client.post(comments, json={"body": "Yes"}, headers=bob).status_code == 201

    assert [a["id"] for a in client.get("/api/v1/feed", headers=bob).json()["items"]] == [article]
    tagged = client.get("/api/v1/feed", params={"tag": "sea"}, headers=ada).json()["items"]
    assert [a["tag_ids"] for a in tagged] == [[tag]]
    counted = f"/api/v1/feed/favorites/{article}"
    assert client.get(counted, headers=bob).json() == {"count": 1, "is_favorite": True}
    assert client.get(counted, headers=ada).json() == {"count": 1, "is_favorite": False}
"""


def snapshot(project: Project) -> dict[str, str]:
    """What git keeps. The lock of the generators stays, empty and ignored."""
    ignored = {".git", ".ruff_cache", "lock.db"}
    files = (file for file in project.files() if not ignored & {*file.parts})
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


# A plugin of pytest. A generated test fails at an answer that OpenAPI does not announce.
ANNOUNCED = """
import re

from starlette.testclient import TestClient

request = TestClient.request


def check(self, method, url, **options):
    response = request(self, method, url, **options)
    for path, operations in self.app.openapi()["paths"].items():
        if re.fullmatch(re.sub("{.*?}", "[^/]+", path), response.request.url.path):
            announced = operations[method.lower()]["responses"]
            assert str(response.status_code) in announced, (method, path, response.text)
    return response


TestClient.request = check
"""


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
        said = generate_resource(project, *known)
        assert "alembic upgrade head" in said
        guarded = auth and "--owned-by" not in known
        assert ("permission grant USERNAME " in said) == guarded
        commit(project)

    seconds = (time.monotonic() - started) / len(resources)
    report(f"a resource in {seconds:.1f} s, committed")
    check_everything(project)
    tests = sorted(str(file) for file in project.files() if str(file) not in before)
    tests = [file for file in tests if file.startswith("tests/") and file.endswith(".py")]
    guards = ["tests/test_guards.py", *(["tests/auth/test_guards.py"] if auth else [])]
    (project.path / "announced.py").write_text(ANNOUNCED, "utf-8")
    assert " passed" in project.succeed("pytest", "-q", "-p", "announced", *tests, *guards)
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

    generate_resource(project, *BOOK, "--owned-by", "author")
    files = ["app/models/book.py", "app/schemas/book.py", "app/api/v1/book_router.py"]
    written = [line for file in files for line in project.read(file).splitlines() if line.strip()]
    imports = sum(
        (node.end_lineno or 0) - node.lineno + 1
        for file in files
        for node in ast.parse(project.read(file)).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    )
    report(f"five fields and an owner: {len(written) - imports} lines, and {imports} of imports")
    assert len(written) - imports <= 60
    assert len(written) <= 80


def test_the_commands_of_the_guide_run_as_printed(repository: Callable[..., Project]) -> None:
    project = repository(auth=True)
    (section,) = re.findall(r"^## Add a resource\n(.*?)^## ", project.read(DEVELOPING), re.M | re.S)

    for line in code_blocks(section, "")[0].splitlines():
        program, *arguments = shlex.split(line)
        if program == "git":
            git(project.path, *arguments)
        else:
            project.succeed("app", *arguments)

    assert project.has("app/api/v1/chapter_router.py")


def test_a_small_medium_needs_few_lines_by_hand(
    repository: Callable[..., Project], report: Callable[[str], None]
) -> None:
    """Articles, comments, tags, favorites and follows, as in Conduit; then fields for old rows."""
    project = repository(auth=True)
    for arguments in CONDUIT:
        generate_resource(project, *arguments)
        commit(project)
    project.succeed("alembic", "upgrade", "head")
    by_hand = write_by_hand(project)
    project.succeed("alembic", "revision", "--autogenerate", "-m", "unique pairs")
    project.succeed("alembic", "upgrade", "head")
    with closing(sqlite3.connect(project.path / "app.db")) as database, database:
        database.execute("INSERT INTO tags (name) VALUES ('old')")
    commit(project)

    shown = add_to(project)

    assert "in UserRead: nickname: str | None" in shown
    project.succeed("alembic", "upgrade", "head")
    with closing(sqlite3.connect(project.path / "app.db")) as database:
        assert database.execute("SELECT * FROM tags").fetchall() == [(1, "old", None, "plain", 7)]
    check_everything(project)
    (project.path / "tests/auth/test_conduit.py").write_text(CONDUIT_TEST, "utf-8")
    tests = [
        f"test_{name}.py"
        for name in ("articles", "comments", "tags", "follows", "notes", "conduit")
    ]
    guards = ["tests/test_guards.py", "tests/auth/test_guards.py"]
    passed = project.succeed("pytest", "-q", *(f"tests/auth/{test}" for test in tests), *guards)
    assert " passed" in passed
    assert "Done." in project.succeed("app", "import-tags", "folder", "3")
    report(f"Conduit: {len(CONDUIT) - 1} commands, and {by_hand} lines by hand")
    assert by_hand <= 45


def write_by_hand(project: Project) -> int:
    """What no command writes: the feed, a search by tag, counts, and pairs that exist once."""
    lines = 0
    for name, columns in [("favorite", "article_id"), ("follow", "followed_id")]:
        user = "user_id" if name == "favorite" else "follower_id"
        file = f"app/models/{name}.py"
        edit(project, file, "import ForeignKey", "import ForeignKey, UniqueConstraint")
        table = f'    __tablename__ = "{name}s"\n'
        pair = f'    __table_args__ = (UniqueConstraint("{user}", "{columns}"),)\n'
        edit(project, file, table, table + pair)
        lines += 2
    (project.path / "app/api/v1/feed_router.py").write_text(FEED, "utf-8")
    home = "from app.api.v1.follow_router import router as follow\n"
    edit(project, "app/api/routers.py", home, FEED_IMPORT + home)
    last = "    v1.include_router(follow)\n"
    edit(project, "app/api/routers.py", last, last + "    v1.include_router(feed)\n")
    return lines + 2 + sum(1 for line in FEED.splitlines() if line.strip())


def edit(project: Project, file: str, old: str, new: str) -> None:
    text = project.read(file)
    assert text.count(old) == 1, (file, text)
    (project.path / file).write_text(text.replace(old, new), "utf-8")


def add_to(project: Project) -> str:
    """Use each of the smaller commands. Returns what the last field said."""
    for arguments in (
        ["field", "Tag", "note:str?"],
        ["field", "Tag", "kind:plain|loud:default=plain"],
        ["field", "Tag", "weight:int:default=7:index"],
        ["field", "Note", "code:str?:unique"],
        ["permission", "tags:merge", "Merge tags"],
        ["setting", "shelf:str:default=oak"],
        ["command", "import-tags", "folder:str", "limit:int"],
        ["field", "User", "nickname:str?"],
    ):
        shown = project.succeed("app", "generate", *arguments)
        if arguments[0] == "permission":
            assert shown.endswith("It can be granted after: alembic upgrade head\n")
        commit(project)
    assert 'shelf: str = "oak"' in project.read("app/settings.py")
    assert "# SHELF=oak" in project.read(".env.example")
    assert 'TAGS_MERGE = "tags:merge", "Merge tags"' in project.read("app/permissions.py")
    assert '"weight", "-weight"' in project.read("app/schemas/tag.py")
    return shown


PLANS = """
import asyncio

from sqlalchemy import event, select, text

from app.core.database import Database
from app.core.pagination import PageParams
from app.core.search import search
from app.models.note import Note
from app.schemas.note import NoteFilters
from app.settings import load_settings

NOTES = select(Note).where(Note.author_id == 1, Note.deleted_at.is_(None))


async def main() -> None:
    queries = []
    async with Database(load_settings()) as database:
        for engine in database.engines.values():
            listen = lambda *a: queries.append(a[2:4]) if "FROM notes" in a[2] else None
            event.listen(engine, "before_cursor_execute", listen)
        async with database.readers() as session:
            for q in ("o", "ood", "nothing"):
                for statement in (select(Note), NOTES):
                    for order in ("id", "-id"):
                        filters, page = NoteFilters(q=q, order=order), PageParams(10, 5, (order, 5))
                        page = page if order == "-id" else PageParams(10, 5)
                        columns = [Note.title, Note.blurb]
                        await search(session, statement, columns, q, page, filters)
            connection = await session.connection()
            for statement, parameters in [*queries]:
                plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                print(" then ".join(row[-1] for row in plan))


asyncio.run(main())
"""


def test_a_search_reads_the_index_and_only_rows_that_it_found(
    repository: Callable[..., Project],
) -> None:
    project = repository(auth=True)
    fields = ["title:str", "blurb:text?", "author:User", "--search", "title,blurb"]
    generate_resource(project, "Note", *fields, "--owned-by", "author", "--soft-delete")
    project.succeed("alembic", "upgrade", "head")
    (project.path / "plans.py").write_text(PLANS, "utf-8")

    plans = project.succeed("plans").splitlines()

    assert len(plans) == 12
    for plan in plans:
        index, rows = plan.split(" then ")
        assert index.startswith("SCAN notes_search VIRTUAL TABLE INDEX")
        assert rows == "SEARCH notes USING INTEGER PRIMARY KEY (rowid=?)"


KILL_AT_A_RENAME = """
import os, signal, sys
from generators.commands import cli

def count(event, arguments):
    global left
    if event == "os.rename" and arguments[1].endswith(".py"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

left = 4
sys.addaudithook(count)
cli(sys.argv[1:])
"""


@pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")
def test_the_next_command_finishes_one_that_was_killed(repository: Callable[..., Project]) -> None:
    project = repository(auth=True)
    (project.path / "killer.py").write_text(KILL_AT_A_RENAME, "utf-8")
    commit(project)
    assert project.run("killer", "resource", *BOOK).returncode == -signal.SIGKILL
    assert (project.path / "app/schemas/book.py").exists()
    assert "book" not in project.read("app/api/routers.py")

    said = project.run("app", "generate", "setting", "shelf:str:default=oak")

    assert said.returncode == 1
    assert "a command was interrupted; its changes are now complete, in app/models" in said.stderr
    assert "v1.include_router(book)" in project.read("app/api/routers.py")
    assert not any("unfinished" in str(file) for file in project.files())
    assert "SHELF" not in project.read(".env.example")
    commit(project)
    assert "app/settings.py" in project.succeed(
        "app", "generate", "setting", "shelf:str:default=oak"
    )


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
    assert "production is installed without it" in refused.stderr
    assert os.linesep in refused.stderr
