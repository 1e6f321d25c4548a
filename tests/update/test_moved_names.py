"""The table of moved names and the rewriting of code that uses them."""

import ast
import io
import re
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import pytest
import yaml

from tests.support.projects import ROOT, Generate
from tests.update.edits import git
from tools.moved_names import (
    Table,
    names_in_other_files,
    outdated_readme_lines,
    rewrite,
    rewrite_names,
    unresolved_imports,
)
from tools.releases import releases

TABLE = Table.load()


def modules_of(project: Path) -> dict[str, str]:
    return {
        module_name(str(file.relative_to(project))): file.read_text("utf-8")
        for file in (project / "app").rglob("*.py")
    }


def module_name(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


@cache
def released_modules(commit: str) -> dict[str, str]:
    """As `modules_of`, of a release; only two files of `app` are templates with public names."""
    archive = subprocess.run(
        ["git", "archive", commit, "template/app"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            opened = files.extractfile(member)
            name = member.name.removeprefix("template/").removesuffix(".jinja")
            if opened is not None and name.endswith(".py"):
                text = re.sub(r"{%.*?%}\n?|{{.*?}}", "", opened.read().decode("utf-8"))
                found[module_name(name)] = text
    return found


def public_names(project: Path) -> set[str]:
    return names_of(modules_of(project))


def names_of(files: dict[str, str]) -> set[str]:
    """The names that the modules of `app` define, without those that only the module itself uses."""
    return {
        f"{module}.{name}"
        for module, text in files.items()
        for node in ast.parse(text).body
        for name in defined_names(node)
        if not name.startswith("_")
    }


def released_names(commit: str) -> set[str]:
    return names_of(released_modules(commit))


def defined_names(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            yield name
        case ast.Assign(targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(ast.Name(name)):
            yield name
        case ast.ImportFrom(_, names):
            # `X as X` exports X again.
            yield from (alias.name for alias in names if alias.asname == alias.name)


@pytest.fixture(scope="session")
def names_of_today(generate: Generate) -> set[str]:
    return public_names(generate(auth=True, github=True).path)


@pytest.mark.parametrize("version", releases())
def test_every_public_name_of_a_release_is_where_it_was_or_in_the_table(
    version: str, names_of_today: set[str]
) -> None:
    lost = released_names(releases()[version]) - TABLE.hints.keys()

    assert sorted(name for name in lost if TABLE.target(name) not in names_of_today) == []


def test_the_table_names_nothing_that_no_release_had() -> None:
    released = set().union(*map(released_names, releases().values()))
    modules = {name.rpartition(".")[0] for name in released}

    assert set(TABLE.modules) <= modules
    listed = {*TABLE.names, *TABLE.hints, *TABLE.changed, *TABLE.calls}
    assert {name for name in listed if name.startswith("app.")} <= released
    assert set(TABLE.changed) <= {n for n in released if TABLE.target(n) != n}


def test_no_new_name_is_an_old_one_so_that_a_second_run_changes_nothing() -> None:
    targets = {*TABLE.names.values(), *TABLE.modules.values()}

    assert {name for name in targets if TABLE.target(name) != name} == set()


def test_no_name_that_still_exists_has_a_hint_which_each_update_would_repeat(
    names_of_today: set[str],
) -> None:
    assert TABLE.hints.keys() & names_of_today == set()


def files_of(commit: str) -> set[str]:
    listing = git(ROOT, "ls-tree", "-r", "--name-only", commit, "template").split()
    names = {name.removeprefix("template/").removesuffix(".jinja") for name in listing}
    folders = {f"{parent}/" for name in names for parent in PurePosixPath(name).parents}
    return names | folders


@pytest.mark.parametrize("version", releases())
def test_every_place_that_a_released_readme_names_is_there_or_in_the_table(version: str) -> None:
    readme = git(ROOT, "show", f"{releases()[version]}:template/README.md.jinja")
    texts = "".join(git(ROOT, "grep", "--untracked", "-h", "", "--", "template"))
    for old in TABLE.readme:
        readme = readme.replace(old, "")
    places = {word.removeprefix("./") for word in re.findall(r"[\w./-]*[\w/-]", readme)}
    words = {word for code in re.findall(r"`([^`\n]+)`", readme) for word in CONSTANT.findall(code)}

    before, today = files_of(releases()[version]), files_of("HEAD")

    named = {file for file in before if any(is_place(place, file) for place in places)}
    assert {file for file in named if not any(is_place(file, other) for other in today)} == set()
    assert {word for word in words if not re.search(rf"\b{word}\b", texts)} == set()


CONSTANT = re.compile(r"\b[A-Z][A-Z_]+\b")


def is_place(place: str, file: str) -> bool:
    return bool(place.strip("/")) and f"/{file}".endswith(f"/{place}")


def test_a_readme_that_names_what_has_moved_is_quoted_line_by_line(shelf: Path) -> None:
    write(shelf, "app/api/pagination.py", "")
    git(shelf, "add", "--all")
    (shelf / "app/api/pagination.py").unlink()
    write(shelf, "README.md", "# Shelf\n\nSee `app/services/`, and\n`app/api/pagination.py`.\n")

    assert outdated_readme_lines(shelf, TABLE) == [
        "README.md:3: app/services/ -> app/auth/",
        "README.md:4: app/api/pagination.py -> app/core/pagination.py",
    ]
    write(shelf, "app/services/books.py", "")
    assert len(outdated_readme_lines(shelf, TABLE)) == 1


def test_names_in_files_that_are_not_python_are_reported(shelf: Path) -> None:
    write(shelf, "logging.yaml", "json: {class: app.logs.JsonFormatter}\n")
    write(shelf, "Makefile", "copy:\n\tcp app.db app.db.backup\n\tpython -m app.accounts\n")
    write(shelf, "books.ipynb", '["from app.db.session import Database, get_session as s\\n"]')
    write(shelf, "NOTES.md", "app.logs\n")
    (shelf / "cover.png").write_bytes(b"\xff\0 app.logs")
    # Larger than the memory.
    with (shelf / "dump.sql").open("wb") as dump:
        dump.truncate(2**40)

    assert [*names_in_other_files(shelf, TABLE)] == [
        "Makefile:3: app.accounts: now app.auth.cli",
        "books.ipynb:1: app.db.session.Database: now app.core.database.Database",
        "logging.yaml:1: app.logs.JsonFormatter: now app.core.logging.JsonFormatter",
    ]


def test_no_file_of_a_new_project_has_a_name_that_moved(generate: Generate, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(generate(auth=True, github=True).path, project)
    git(project, "init", "--quiet")

    assert [*names_in_other_files(project, TABLE)] == []


def test_the_table_says_which_files_are_shared() -> None:
    config = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))

    text = TABLE.readme["It keeps both your lines and the template's in"]

    assert text.replace(" and ", ", ").split(" in ")[1].split(", ") == config["shared"]["default"]


def test_the_table_is_sorted() -> None:
    for name, part in tomllib.loads((ROOT / "tools/moved_names.toml").read_text("utf-8")).items():
        assert list(part) == sorted(part), name


OLD = '''"""Books."""

import app.db.engine
from app import logs
from app.api.deps import IdPath, SessionDep
from app.db.faults import is_conflict, is_outage
from app.errors import Fault
from app.errors import NotFound as Missing
from app.logs import (
    address,  # who asks, ü
    request_id,
)
from app.services import sessions


async def read_book(book: IdPath, session: SessionDep) -> str:
    url = app.db.engine.parse_url("sqlite://")
    await sessions.open_session(session)
    raise Missing(logs.quoted(f"{address.get()} {Fault}")) if is_outage(url) else is_conflict
'''
NEW = '''"""Books."""

import app.core.database
from app.api.deps import IdPath, SessionDep
from app.auth import sessions
from app.core import logging as logs
from app.core.database import is_integrity_error, is_transient_error
from app.core.logging import (
    client_address,  # who asks, ü
    request_id,
)
from app.errors import FieldError
from app.errors import NotFound as Missing


async def read_book(book: IdPath, session: SessionDep) -> str:
    url = app.core.database.parse_url("sqlite://")
    await sessions.create_login_session(session)
    raise Missing(logs.quote_path(f"{client_address.get()} {FieldError}")) if is_transient_error(url) else is_integrity_error
'''


def test_imports_and_uses_are_rewritten_and_comments_stay() -> None:
    text, _ = rewrite("app/api/v1/books_router.py", OLD, TABLE)

    assert text == NEW


def test_a_second_run_changes_nothing() -> None:
    once, _ = rewrite("app/books.py", OLD, TABLE)

    assert rewrite("app/books.py", once, TABLE) == (once, [])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "from app.db.faults import is_outage as down\n\ndown(1)\n",
            "from app.core.database import is_transient_error as down\n\ndown(1)\n",
        ),
        (
            "from app.db.faults import is_outage\n\n\ndef f(is_transient_error):\n    is_outage(1)\n",
            "from app.core.database import is_transient_error as is_outage\n\n\n"
            "def f(is_transient_error):\n    is_outage(1)\n",
        ),
        (
            "from app.errors import Fault\n\n\ndef f(x: 'Fault') -> Fault: ...\n",
            "from app.errors import FieldError as Fault\n\n\ndef f(x: 'Fault') -> Fault: ...\n",
        ),
        (
            "def f():\n    from app.logs import quoted\n    return quoted('x')\n",
            "def f():\n    from app.core.logging import quote_path\n    return quote_path('x')\n",
        ),
        (
            "from ..db.base import LARGEST_ID, Base\n\nprint(LARGEST_ID, Base)\n",
            "from app.core.types import MAX_ID\nfrom app.db.base import Base\n\nprint(MAX_ID, Base)\n",
        ),
        (
            "import app.logs as log\n\nlog.quoted('')\n",
            "import app.core.logging as log\n\nlog.quote_path('')\n",
        ),
        (
            "from app import errors\nfrom app.db import session\n\n"
            "errors.Fault, errors.NotFound, session.Database, session.get_session\n",
            "from app import errors\nfrom app.core.database import Database\n"
            "from app.db import session\n\n"
            "errors.FieldError, errors.NotFound, Database, session.get_session\n",
        ),
        (
            "from app.security import is_token, digest  # noqa: F401\n",
            "from app.security import is_token  # noqa: F401\n"
            "from app.auth.authentication import hash_token  # noqa: F401\n",
        ),
        (
            "from app.db.base import (\n    LARGEST_ID,  # the end\n    Base,  # ours\n)\n\n"
            "print(LARGEST_ID, Base)\n",
            "from app.core.types import (\n    MAX_ID,  # the end\n)\n"
            "from app.db.base import (\n    Base,  # ours\n)\n\nprint(MAX_ID, Base)\n",
        ),
        (
            "from app.db.base import (  # tables\n    LARGEST_ID,\n    Base,\n)  # type: ignore\n\n"
            "print(LARGEST_ID, Base)\n",
            "from app.core.types import MAX_ID  # type: ignore  # tables\n"
            "from app.db.base import Base  # type: ignore\n\nprint(MAX_ID, Base)\n",
        ),
        ("from app.models.session import *\n", "from app.auth.models import *\n"),
        (
            "from app.db.base import *\nfrom app.services.rights import *\n\n"
            "Base, LARGEST_ID, UtcDateTime, held_by, set_permissions\n",
            "from app.auth.permissions import *\nfrom app.auth.permissions import granted as held_by\n"
            "from app.core.types import MAX_ID as LARGEST_ID\n"
            "from app.core.types import UtcDateTime\nfrom app.db.base import *\n\n"
            "Base, LARGEST_ID, UtcDateTime, held_by, set_permissions\n",
        ),
        ("from app.errors import X as X\n", "from app.errors import X as X\n"),
        (
            "\ufefffrom app.logs import request_id\r\n\r\nrequest_id.get()\r\n",
            "\ufefffrom app.core.logging import request_id\r\n\r\nrequest_id.get()\r\n",
        ),
    ],
    ids=[
        "alias",
        "shadowed",
        "quoted annotation",
        "in a function",
        "relative",
        "module alias",
        "modules that stay",
        "directive",
        "comments of names",
        "comment of a statement",
        "star",
        "names of a star",
        "export",
        "CRLF and BOM",
    ],
)
def test_other_ways_to_import_are_rewritten(before: str, after: str) -> None:
    text, _ = rewrite("app/api/books.py", before, TABLE)

    assert text == after


CALLS = {
    "keyword": (
        "from app.db.faults import is_outage\n\nis_outage(error, only_reads=True)\n",
        "from app.core.database import is_transient_error\n\n"
        "is_transient_error(error, read_only=True)\n",
    ),
    "seed rows": (
        "from app.db.base import Base\nfrom app.db.reference import keep_rows\n\n"
        'keep_rows(Base.metadata.tables["genres"], "name", ROWS)\n'
        "keep_rows(table, key='name', rows=ROWS)\n",
        "from app.core.seed_data import register_seed_rows\nfrom app.db.base import Base\n\n"
        'register_seed_rows(Base.metadata, "genres", "name", ROWS)\n'
        "register_seed_rows(table.metadata, table.name, 'name', ROWS)\n",
    ),
    "criteria": (
        "from app.services import rights\n\n\nasync def f(session):\n"
        "    await rights.load_user(session, user_id=1)\n",
        "from app.auth.users import load_user\nfrom app.models.user import User\n\n\n"
        "async def f(session):\n    await load_user(session, User.id == 1)\n",
    ),
    "result": (
        "from app.services.users import add_row, new_row\n\n\nasync def f(session):\n"
        "    row = await new_row(settings, data)\n    key = await add_row(session, row)\n",
        "from app.auth.users import add_user, new_user\n\n\nasync def f(session):\n"
        "    row = await new_user(settings, data)\n"
        "    key = (await add_user(session, row)).id\n",
    ),
    "identity": (
        "from app.api.auth import get_identity\n\n\nasync def f():\n"
        "    return await get_identity(request, token, database, session, settings, after)\n",
        "from app.auth.dependencies import get_auth_context\n\n\nasync def f():\n"
        "    return await get_auth_context(request, token, session, after)\n",
    ),
    "pages": (
        "from app.api.pagination import Page, PagingDep, Slice\n\n\n"
        "async def list_books(paging: PagingDep, session) -> Slice[Book]:\n"
        "    rows = await session.scalars(paging.of(Book).where(Book.is_new))  # new ones\n"
        "    return paging.slice(rows.all())\n\n\nprint(Page)\n",
        "from sqlalchemy import select\n\nfrom app.core.pagination import Page, PageDep, paginate\n\n\n"
        "async def list_books(paging: PageDep, session) -> Page[Book]:\n"
        "    return await paginate(session, select(Book).where(Book.is_new), paging)\n\n\nprint(Page)\n",
    ),
    "pages of 0.1.0": (
        "from sqlalchemy import select\n\nfrom app.api.pagination import PagingDep\n\n\n"
        "async def list_books(paging: PagingDep, session):\n"
        "    found = (await session.scalars(paging.of(select(Book), Book.id))).all()\n"
        "    return paging.slice(found)\n",
        "from sqlalchemy import select\n\nfrom app.core.pagination import PageDep, paginate\n\n\n"
        "async def list_books(paging: PageDep, session):\n"
        "    return await paginate(session, select(Book), paging)\n",
    ),
    "attempts": (
        "from app.services import throttle\n\n\nasync def f():\n"
        "    async with database.writers.begin() as session:\n"
        '        await throttle.reserve(session, "ada", client.address)\n'
        "    async with database.writers.begin() as session:\n"
        '        await throttle.reserve(session, "bob", client.address)\n'
        "        await work(session)\n",
        "from app.auth import throttle\n\n\nasync def f():\n"
        '    await throttle.record(database, "ada", client.address)\n'
        '    await throttle.record(database, "bob", client.address)\n'
        "    async with database.writers.begin() as session:\n"
        "        await work(session)\n",
    ),
}


@pytest.mark.parametrize("kind", CALLS)
def test_calls_are_rewritten_together_with_their_arguments(kind: str) -> None:
    before, after = CALLS[kind]

    assert rewrite("app/books.py", before, TABLE) == (after, [])
    assert rewrite("app/books.py", after, TABLE) == (after, [])


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("await rights.load_user(session, *ids)", "app.services.rights.load_user"),
        ("await throttle.reserve(session, name, address)", "app.services.throttle.reserve"),
        ("return await session.scalars(paging.of(Book))", "app.api.pagination.PagingDep"),
    ],
)
def test_a_call_that_cannot_be_rewritten_is_named_with_its_line(line: str, name: str) -> None:
    text = (
        "from app.api.pagination import PagingDep\nfrom app.services import rights, throttle\n\n\n"
        f"async def f(session, paging: PagingDep):\n    {line}\n"
    )

    result, reports = rewrite("app/books.py", text, TABLE)

    number = next(n for n, text in enumerate(result.split("\n"), 1) if text.startswith("    "))
    assert reports == [
        f"app/books.py:{number}: {name}: now {TABLE.target(name)}, rewritten: {TABLE.changed[name]}"
    ]


def parameters(files: dict[str, str]) -> dict[str, tuple[int, set[str]]]:
    """Of each public function, how many arguments it needs, and which only by keyword."""
    found = {}
    for module, text in files.items():
        for node in ast.parse(text).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if not node.name.startswith("_"):
                needed = len(node.args.args) - len(node.args.defaults)
                keywords = {argument.arg for argument in node.args.kwonlyargs}
                found[f"{module}.{node.name}"] = needed, keywords
    return found


@pytest.mark.parametrize("version", releases())
def test_every_function_that_takes_other_arguments_by_now_is_in_the_table(
    version: str, generate: Generate
) -> None:
    """Routes and commands are not called from code."""
    today = parameters(modules_of(generate(auth=True, github=True).path))
    lost = []
    for name, needed in parameters(released_modules(releases()[version])).items():
        is_called = not any(part in name for part in ("_router.", "app.cli.", "app.accounts."))
        now = today.get(TABLE.target(name), needed)
        if is_called and now != needed and name not in TABLE.hints:
            lost.append(name)

    assert [name for name in lost if name not in {*TABLE.calls, *TABLE.changed}] == []


def test_what_is_not_mechanical_is_reported_with_file_line_and_what_to_do() -> None:
    text = (
        "from app import logs\n"
        "from app.api.pagination import PagingDep\n"
        "from app.permissions import PERMISSIONS\n\n\n"
        "def test(monkeypatch, page: PagingDep):\n"
        "    monkeypatch.setattr(logs, 'quoted', None)\n"
        "    monkeypatch.setattr('app.security.digest', None)\n"
        "    return PERMISSIONS, page.of(Book)\n"
    )

    _, reports = rewrite("tests/test_own.py", text, TABLE)

    assert sorted(reports) == [
        "tests/test_own.py:3: app.permissions.PERMISSIONS: "
        f"{TABLE.hints['app.permissions.PERMISSIONS']}",
        "tests/test_own.py:7: app.logs.quoted: now app.core.logging.quote_path",
        "tests/test_own.py:8: app.security.digest: now app.auth.authentication.hash_token",
        "tests/test_own.py:9: app.api.pagination.PagingDep: now app.core.pagination.PageDep, "
        f"rewritten: {TABLE.changed['app.api.pagination.PagingDep']}",
    ]


def test_a_name_of_a_star_that_is_gone_is_reported() -> None:
    text = "from app.security import *\n\n\ndef f(digest):\n    return is_token, digest\n"

    _, reports = rewrite("app/books.py", text, TABLE)

    assert reports == [
        f"app/books.py:5: app.security.is_token: {TABLE.hints['app.security.is_token']}"
    ]


def test_what_the_owner_added_to_a_module_that_moved_stays_there(shelf: Path) -> None:
    write(shelf, "app/services/users.py", "def mine(): ...\n")
    write(
        shelf,
        "app/books.py",
        "import app.services.users\nfrom app.services import users\n"
        "from app.services.users import mine, new_user\n\n"
        "users.mine(), users.set_password(), mine(), new_user(), app.services.users.mine()\n",
    )

    rewrite_names(shelf, TABLE)

    assert (shelf / "app/books.py").read_text() == (
        "import app.services.users\nfrom app.auth.users import new_user, set_password\n"
        "from app.services import users\nfrom app.services.users import mine\n\n"
        "users.mine(), set_password(), mine(), new_user(), app.services.users.mine()\n"
    )


def test_a_name_of_the_owners_in_a_module_of_the_template_stays(shelf: Path) -> None:
    own = "from app.cli import fail\nfrom app.security import digest\n\nfail(digest)\n"
    write(shelf, "app/cli.py", "def fail(): ...\n")
    write(shelf, "app/security.py", "digest = 1\n\n\ndef f(is_token): ...\n")
    write(shelf, "app/books.py", own)

    assert rewrite_names(shelf, TABLE) == []
    assert (shelf / "app/books.py").read_text() == own
    assert unresolved_imports(shelf, TABLE) == []


def test_ids_in_paths_stay(shelf: Path) -> None:
    route = "import app.logs\n\nrouter.get('/books/{book_id:id}')\n"
    write(shelf, "app/books.py", route)

    assert rewrite_names(shelf, TABLE) == ["names that moved were rewritten in app/books.py"]
    assert "{book_id:id}" in (shelf / "app/books.py").read_text()


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    write(tmp_path, ".copier-answers.yml", "auth: true\n")
    return tmp_path


def write(shelf: Path, file: str, text: str) -> None:
    (shelf / file).parent.mkdir(parents=True, exist_ok=True)
    (shelf / file).write_text(text)


def test_the_owners_files_are_rewritten_and_the_templates_and_migrations_are_not(
    shelf: Path,
) -> None:
    line = "from app.logs import request_id\n"
    own = ["app/auth/shelf.py", "app/core/prices.py", "app/models/book.py", "tests/test_books.py"]
    others = ["app/core/logging.py", "app/auth/users.py", "alembic/versions/1.py", "broken.py"]
    for file in [*own, *others]:
        write(shelf, file, line + "x = (\n" * (file == "broken.py"))

    said = rewrite_names(shelf, TABLE)

    for file in own:
        assert (shelf / file).read_text() == "from app.core.logging import request_id\n"
    for file in others:
        assert (shelf / file).read_text().startswith(line)
    assert said[0] == f"names that moved were rewritten in {', '.join(own)}"
    assert said[1].startswith("broken.py: can't be read")


def test_a_file_outside_the_project_is_not_rewritten_through_a_link(
    shelf: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("elsewhere") / "shared.py"
    outside.write_text("from app.logs import quoted\n")
    write(shelf, "app/books.py", "from app.logs import quoted\n")
    (shelf / "app/shared.py").symlink_to(outside)
    (shelf / "app/again.py").symlink_to("books.py")

    said = rewrite_names(shelf, TABLE)

    assert said[0] == "names that moved were rewritten in app/books.py"
    assert outside.read_text() == "from app.logs import quoted\n"
    assert (shelf / "app/again.py").is_symlink()


def test_without_the_login_app_auth_is_the_owners(shelf: Path) -> None:
    write(shelf, ".copier-answers.yml", "auth: false\n")
    write(shelf, "app/auth/users.py", "from app.logs import request_id\n")
    write(shelf, "app/auth/router.py", "from app.books import Book\n")

    assert rewrite_names(shelf, TABLE) == ["names that moved were rewritten in app/auth/users.py"]
    assert unresolved_imports(shelf, TABLE) == [
        "app/auth/router.py:1: app.books.Book: does not exist",
        "app/auth/users.py:1: app.core.logging.request_id: does not exist",
    ]


def test_an_import_of_what_is_gone_is_named(shelf: Path) -> None:
    write(shelf, "app/__init__.py", "TITLE = 'Shelf'\n")
    write(shelf, "app/books.py", "def read_books(): ...\n")
    write(
        shelf,
        "app/api/books_router.py",
        "from app import TITLE, books\nfrom app.books import read_books, write_books\n"
        "from app.security import new_token\n",
    )
    write(shelf, "alembic/versions/1_books.py", "from app.models.session import AuthSession\n")

    assert unresolved_imports(shelf, TABLE) == [
        "alembic/versions/1_books.py:1: app.models.session.AuthSession: "
        "now app.auth.models.LoginSession",
        "app/api/books_router.py:2: app.books.write_books: does not exist",
        f"app/api/books_router.py:3: app.security.new_token: {TABLE.hints['app.security.new_token']}",
    ]
