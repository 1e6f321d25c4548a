"""No release breaks the code of owners without notice, and deprecation breaks no test of theirs."""

import re
import shutil
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest
from copier import run_copy

from tests.render.test_project_documents import code_blocks
from tests.support.breaking_changes import Code, uncovered_changes
from tests.support.projects import ROOT, Generate, Project
from tests.update.edits import git
from tools.interface import LIST, Interface
from tools.moved_names import Table
from tools.releases import releases

TODAY = Interface.load()
SINCE = [
    commit
    for version, commit in releases().items()
    if tuple(map(int, version.split("."))) >= (0, 7, 0)
]


def listed_at(repository: Path, commit: str) -> Interface | None:
    """What a release listed; nothing before 0.7.0."""
    command = ["git", "-C", str(repository), "show", f"{commit}:{LIST}"]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    return None if run.returncode else Interface.parse(run.stdout)


def changes_without_notice(
    repository: Path, commits: list[str], project: Path, today: Interface, table: Table
) -> dict[str, list[str]]:
    """What broke since each of these releases, oldest first, that listed its names."""
    lists = {commit: found for commit in commits if (found := listed_at(repository, commit))}
    changes = {}
    for commit, listed in lists.items():
        old = project.with_name(f"old-{commit}")
        answers = {"auth": True}
        run_copy(
            str(repository),
            old,
            answers,
            vcs_ref=commit,
            defaults=True,
            skip_tasks=True,
            quiet=True,
        )
        every = [*lists.values(), today]
        changes[commit] = uncovered_changes(Code(old), Code(project), listed, table, every)
    return changes


def test_nothing_that_a_release_listed_broke_without_notice(
    template: Path, generate: Generate, tmp_path: Path
) -> None:
    head = git(template, "rev-parse", "HEAD").strip()
    project = shutil.copytree(generate(auth=True).path, tmp_path / "project")
    commits = [*releases().values(), head]

    changes = changes_without_notice(template, commits, project, TODAY, Table.load())

    assert [*changes] == [*SINCE, head]
    assert {commit: broke for commit, broke in changes.items() if broke} == {}


@pytest.mark.parametrize(
    ("file", "before", "after", "place"),
    [
        (
            "app/core/database.py",
            "def locks_rows(session: AsyncSession)",
            "def locks_rows(session: AsyncSession, table: str)",
            "app.core.database.locks_rows(table): Parameter was added as required",
        ),
        (
            "app/core/app.py",
            "lifespan: Lifespan | None = None,",
            "lifespan: Lifespan | None,",
            "app.core.app.build_app(lifespan): Parameter is now required",
        ),
        (
            "app/core/routing.py",
            "def __init__(self, **options: Any)",
            "def __init__(self, prefix: str, **options: Any)",
            "app.core.routing.Router.__init__(prefix): Parameter was added as required",
        ),
        (
            "app/auth/authentication.py",
            "    email: str\n",
            "",
            "app.auth.sessions.AuthContext.email: Public object was removed",
        ),
        (
            "app/core/errors.py",
            "class FieldError(",
            "class Field(",
            "app.errors.FieldError: removed",
        ),
        (
            "tests/auth/conftest.py",
            "def visitor(",
            "def guest(",
            "tests.auth.conftest.visitor: removed",
        ),
    ],
    ids=[
        "required parameter",
        "default that goes",
        "parameter of a method",
        "field",
        "name that is passed on",
        "fixture",
    ],
)
def test_a_change_of_a_listed_name_is_found(
    generate: Generate, tmp_path: Path, file: str, before: str, after: str, place: str
) -> None:
    old = generate(auth=True)
    new = Project(Path(shutil.copytree(old.path, tmp_path / "project")), {})
    assert before in new.read(file)
    (new.path / file).write_text(new.read(file).replace(before, after, 1), "utf-8")

    found = uncovered_changes(Code(old.path), Code(new.path), TODAY, Table(), [TODAY])

    assert place in found


# ---- a history of releases ---------------------------------------------------------------------

COPIER = "_subdirectory: template\n_templates_suffix: .jinja\nauth: {type: bool, default: true}\n"
OLD_BOOKS = """
    class Book:
        title: str = ""
        author: str = ""
        year: int = 0
        pages: int = 0

        def read(self, page: int, *, aloud: bool = False) -> str: ...

    MAX_PAGES = 1000

    def add(book: Book, *, note: str = "") -> None: ...
    def count(shelf: str = "oak") -> int: ...
    def find(title: str, author: str) -> Book: ...
    def lend(book: Book) -> None: ...
    def load(book: int) -> Book: ...
    def look(book: int | Book) -> str | None: ...
    def lose(book: Book) -> None: ...
    def pack(book: Book, box: str = "red") -> None: ...
    def peek(book: int) -> str: ...
    def post(book: Book, box: str = "red") -> None: ...
    def rename(book: Book, title: str) -> None: ...
    def return_(book: Book) -> None: ...
    def sell(book: Book) -> None: ...
    def sort(books: list[Book]) -> None: ...
    def weigh(book: Book) -> int: ...
    def _dust(book: Book) -> None: ...
"""
LISTED = [
    "Book",
    "MAX_PAGES",
    "add",
    "count",
    "find",
    "lend",
    "load",
    "look",
    "lose",
    "pack",
    "peek",
    "post",
    "rename",
    "return_",
    "sell",
    "sort",
    "weigh",
]
NEW_BOOKS = """
    import warnings
    from typing import Any

    class Book:
        title: str = ""
        author: str
        year: str = ""
        shelf: str

        @property
        def limit(self) -> int: ...
        def read(self, page: int) -> str: ...

    def add(book: Book) -> None: ...
    def count(shelf: str) -> int: ...
    def find(author: str, title: str) -> Book: ...
    def lend(book: Book, until: str = "") -> None: ...
    def pack(book: Book, box: str = "blue") -> None: ...
    def look(book: int | Book | None) -> str: ...
    def peek(book: Book) -> str | None: ...
    def post(book: Book, box: str | None = None) -> None: ...

    def __getattr__(name: str) -> Any:
        if name == "MAX_PAGES":
            text = "app.core.books.MAX_PAGES goes: use Book.limit"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            return 1000
        raise AttributeError(name)
"""
SHELVES = """
    from app.core.books import Book

    def load_book(book: int) -> Book: ...
    def rename_book(book: Book) -> None: ...
    def return_book(book: Book, shelf: str) -> None: ...
"""
MOVED = Table(
    names={
        "app.core.books.load": "app.core.shelves.load_book",
        "app.core.books.rename": "app.core.shelves.rename_book",
        "app.core.books.return_": "app.core.shelves.return_book",
        "app.core.books.sort": "app.core.shelves.sort_books",
    },
    changed={"app.core.books.return_": "pass the shelf, too"},
    hints={"app.core.books.lose": "books are never lost"},
)


class History:
    """The repository of a small template."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        folder.mkdir()
        git(folder, "init", "--quiet")
        self.write("copier.yml", COPIER)
        self.write("template/app/__init__.py", "")
        self.write("template/app/core/__init__.py", "")

    def write(self, file: str, text: str) -> None:
        path = self.path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), "utf-8")

    def release(self, listed: list[str], deprecated: dict[str, str]) -> str:
        rows = [f'{name} = "…"' for name in listed]
        notices = [f'"app.core.books.{name}" = "{new}"' for name, new in deprecated.items()]
        lines = ["internal = []", "[deprecated]", *notices, '[import."app.core.books"]', *rows]
        self.write(LIST, "\n".join([*lines, "[started]", "[fixtures]", ""]))
        git(self.path, "add", "--all")
        git(self.path, "commit", "--quiet", "--message", "Release")
        return git(self.path, "rev-parse", "HEAD").strip()


def test_what_goes_without_notice_is_reported_by_name(tmp_path: Path) -> None:
    history = History(tmp_path / "template")
    history.write("template/app/core/books.py", OLD_BOOKS)
    first = history.release(LISTED, {"sell": "give"})
    second = history.release(LISTED, {"sell": "give", "weigh": "measure", "add(note)": "Note"})
    third = history.release(LISTED, {"sell": "give", "add(note)": "Note"})
    history.write("template/app/core/books.py", NEW_BOOKS)
    history.write("template/app/core/shelves.py", SHELVES)
    # The rows of names that go are dropped as well, which hides nothing.
    deprecated = {"MAX_PAGES": "Book.limit", "post(box)": "pack"}
    last = history.release(["Book", "MAX_PAGES", "post"], deprecated)
    today = listed_at(history.path, last)
    assert today

    project = tmp_path / "project"
    run_copy(str(history.path), project, defaults=True, quiet=True, vcs_ref=last)
    commits = [first, second, third]
    changes = changes_without_notice(history.path, commits, project, today, MOVED)

    # `sell` was deprecated in three releases, `add(note)` in two and `weigh` in one.
    expected = [
        "app.core.books.Book.pages: Public object was removed",
        "app.core.books.Book.read(aloud): Parameter was removed",
        "app.core.books.Book.author: Field is now required",
        "app.core.books.Book.shelf: Field is now required",
        "app.core.books.Book.year: Type was changed",
        "app.core.books.count(shelf): Parameter is now required",
        "app.core.books.find(title): Positional parameter was moved",
        "app.core.books.find(author): Positional parameter was moved",
        "app.core.books.pack(box): Parameter default was changed",
        "app.core.books.peek(book): Type was changed",
        "app.core.books.peek: Type was changed",
        "app.core.books.rename(title): Parameter was removed",
        "app.core.books.sort: moved to app.core.shelves.sort_books, which does not exist",
        "app.core.books.weigh: removed",
    ]
    assert changes == dict.fromkeys(commits, expected)


def test_a_name_that_is_deprecated_still_works_and_warns(generate: Generate) -> None:
    code = Code(generate(auth=True).path)

    assert [old for old, new in TODAY.deprecated.items() if not code.warns(old, new)] == []


OWNERS_TEST = """
    import pytest

    from app.core.books import Bookcase, find_books


    def test_the_old_names_work() -> None:
        assert find_books(room="hall") == ["hall"]
        assert isinstance(Bookcase(), Bookcase)


    def test_other_names_do_not() -> None:
        with pytest.raises(ImportError):
            from app.core.books import Drawer  # noqa: F401
"""


def test_an_owner_sees_deprecations_as_contributors_write_them_and_no_test_fails(
    generate: Generate, tmp_path: Path
) -> None:
    project = Project(Path(shutil.copytree(generate(auth=False).path, tmp_path / "project")), {})
    (books,) = (
        code
        for code in code_blocks((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
        if code.startswith("# app/core/books.py\n")
    )
    (project.path / "app/core/books.py").write_text(books, "utf-8")
    (project.path / "tests/test_own.py").write_text(dedent(OWNERS_TEST), "utf-8")
    code = Code(project.path)

    assert code.warns("app.core.books.find_books(room)", "shelf")
    assert code.warns("app.core.books.Bookcase", "Shelf")
    assert not code.warns("app.core.books.find_books(room)", "Shelf")
    assert not code.warns("app.core.books.Shelf", "Shelf")
    output = project.succeed("pytest", "tests/test_own.py")
    assert "2 passed, 2 warnings" in output
    for warning in re.findall(r'"(app\.core\.books\..*)"', books):
        assert f"DeprecationWarning: {warning}" in output
    assert project.run("pytest", "tests/test_own.py", "-o", "filterwarnings=error").returncode
    project.succeed("mypy")
    project.succeed("ruff", "check", "app")
    project.succeed("ruff", "format", "--check", "app")
