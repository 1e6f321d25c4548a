"""What `generate` is given: names and fields become code, or a sentence that says why not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from generators import commands
from generators.additions import check_new_field, write_field
from generators.changes import UNFINISHED, GenerateError, exclusive_lock, finish, write_changes
from generators.fields import parse_field
from generators.names import BadName, Names, Target, pluralize, singularize, snake
from generators.places import after_calls_of, at_end_of_set
from generators.project import Stage, check_committed, last_reason, staged

TARGETS = {"User": Target("User", "app.models.user", "users")}


@pytest.mark.parametrize(
    ("singular", "plural"),
    [
        ("book", "books"),
        ("person", "people"),
        ("category", "categories"),
        ("key", "keys"),
        ("news", "news"),
        ("bus", "buses"),
        ("box", "boxes"),
        ("book_child", "book_children"),
        ("book_shelf", "book_shelves"),
        ("api_key", "api_keys"),
    ],
)
def test_plurals_are_english(singular: str, plural: str) -> None:
    assert pluralize(singular) == plural


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("tags", "tag"),
        ("people", "person"),
        ("categories", "category"),
        ("boxes", "box"),
        ("shelves", "shelf"),
        ("old_keys", "old_key"),
        ("staff", "staff"),
    ],
)
def test_the_ids_of_many_rows_are_named_after_one(plural: str, singular: str) -> None:
    assert singularize(plural) == singular


@pytest.mark.parametrize(
    ("model", "expected"),
    [("BookShelf", "book_shelf"), ("APIKey", "api_key"), ("ABC", "abc"), ("Book2", "book2")],
)
def test_words_of_a_class_are_found(model: str, expected: str) -> None:
    assert snake(model) == expected


def refusal(*arguments: str) -> str:
    """What the command says. It must have changed nothing, so it can run in this project."""
    result = CliRunner().invoke(commands.cli, ["resource", *arguments, "--force"])
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    return result.output


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("class", "such as Class"),
        ("book", "such as Book"),
        ("Bücher", "such as Bucher"),
        ("Book Shelf", "such as BookShelf"),
        ("", "such as Book"),
        ("Class", "such as LibraryClass"),
        ("Metadata", "such as LibraryMetadata"),
        ("None", "such as LibraryNone"),
        ("Table", "use the name Table twice"),
        ("Base", "such as LibraryBase"),
        ("Session", "such as LibrarySession"),
        ("Update", "such as LibraryUpdate"),
        ("LoadAll", "such as LibraryLoadAll"),
        ("User", "User exists, in app.models.user"),
        ("Permission", "exists"),
        ("B" + "o" * 62, "too long for a database"),
        ("Page", "such as LibraryPage"),
        ("Search", "such as LibrarySearch"),
        ("Decimal", "use the name Decimal twice; choose a more specific name"),
    ],
)
def test_a_name_that_would_break_something_is_refused_with_a_better_one(
    name: str, expected: str
) -> None:
    assert expected in refusal(name, "title:str")


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("title", "unknown type ''; use str, text"),
        ("title:string", "unknown type 'string'"),
        ("author:Writer", "or a model: "),
        ("Title:str", "title:str"),
        ("título:str", "titulo:str"),
        ("class:str", "choose a longer one"),
        ("metadata:str", "choose a longer one"),
        ("id:int", "choose a longer one"),
        ("date:date", "choose a longer one"),
        ("self:str", "choose a longer one"),
        ("list:str", "choose a longer one"),
        ("property:str", "choose a longer one"),
        ("relationship:str", "choose a longer one"),
        ("model_name:str", "choose a longer one"),
        ("json:str", "schemas have a method of this name"),
        ("title:str:uniq", "unknown option 'uniq'"),
        ("data:json:index", "can't have an index"),
        ("limit:int:index", "lists read limit from the query"),
        ("state:a|a", "each value once"),
        ("state:a|", "letters and digits"),
        ("state:a|b:default=c", "must be one of a, b"),
        ("pages:int:default=many", "'many' is not a valid int"),
        ("pages:int:default=2147483648", "not a valid int"),
        ("pages:int:default=٣", "not a valid int"),
        ("ratio:float:default=nan", "not a valid float"),
        ("price:decimal:default=x", "not a valid decimal"),
        ("price:decimal:default=NaN", "not a valid decimal"),
        ("price:decimal:default=0.001", "not a valid decimal"),
        ("price:decimal:default=1E+3", "not a valid decimal"),
        (f"title:str:default={'x' * 256}", "is not a valid str"),
        ("blurb:text:index", "too long for an index; use str"),
        ("on:bool:unique", "so it can't be unique"),
        ("state:a|b:unique", "so it can't be unique"),
        ("on:date:default=2026-02-30", "not a valid date"),
        ("ok:bool:default=yes", "must be one of true, false"),
        ("at:datetime:default=now", "can't have a default"),
        ('title:str:default="', "leave out quotes"),
        ("t" * 63 + ":str", "too long for a database"),
        # SQLite would take them, PostgreSQL does not.
        ("lateral:str", "choose a longer one"),
        ("xmin:int", "choose a longer one"),
        # SQLAlchemy does not quote it, and SQLite needs that.
        ("returning:str", "choose a longer one"),
        ("parent:Book", "write parent:Book?"),
        ("others:Book*", "write a model for the links"),
        ("names:str*", "only a model has a *"),
        ("users:User*:unique", "no options follow it"),
    ],
)
def test_a_field_that_would_break_something_is_refused_with_a_sentence(
    field: str, expected: str
) -> None:
    assert expected in refusal("Book", field)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["field", "Nope", "a:int?"], "there is no model Nope; the models are "),
        (["field", "User", "username:str?"], "User has a field username"),
        (["field", "User", "age:int"], "write age:int?, or age:int:default=..."),
        (["field", "User", "at:datetime"], "write at:datetime?\n"),
        (["field", "User", "boss:User"], "write boss:User?\n"),
        (["field", "User", "a:str:default=x:unique"], "would share the default"),
        (["field", "User", "friends:User*"], "by hand, or with a new resource"),
        (["field", "User", "registry:str?"], "choose a longer one"),
        (["field", "User", "permissions:str?"], "User has a field permissions"),
        (["field", "LoginSession", "a:str?"], "belongs to the template"),
        (["permission", "lend", "Lend"], "write a permission like books:lend"),
        (["permission", "users:read", "See"], "users:read exists"),
        (["permission", "books:lend", 'Lend "now"'], "without quotes"),
        (["setting", "environment:str:default=x"], "is a setting already"),
        (["setting", "docs_are_on:bool:default=true"], "is a setting already"),
        (["setting", "shelf:str"], "with a default: shelf:str:default=oak"),
        (["setting", "day:date:default=2026-01-01"], "write a str, int, bool or float"),
        (["command", "Import"], "write a command like import-books"),
        (["command", "serve"], "serve is a command already"),
        (["command", "main"], "uses this name"),
        (["command", "import"], "uses this name"),
        (["command", "run"], "uses this name"),
        (["command", "load", "day:date"], "day:date: an argument is a str"),
        (["command", "load", "a:bool:default=true"], "a:bool:default=true: an argument is a str"),
        (["command", "load", "run:str"], "run: generated code needs this name"),
        (["command", "load", "session:str"], "session: generated code needs this name"),
        (["command", "load", "a:str", "a:int"], "a: two arguments have this name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_smaller_additions_are_refused_with_a_sentence(arguments: list[str], expected: str) -> None:
    models = ["LoginSession", "permissions:str?"]
    if arguments[0] == "permission" or any(name in arguments for name in models):
        pytest.importorskip("app.auth")
    result = CliRunner().invoke(commands.cli, [*arguments, "--force"])

    assert result.exit_code == 1, result.output
    assert expected in result.output
    assert result.output.count("\n") == 1


def test_two_fields_cannot_have_one_name() -> None:
    assert "two fields have this name" in refusal("Book", "a:str", "a:int")
    assert "two fields have this name" in refusal("Book", "author:User?", "author_id:int")
    assert "two fields have this name" in refusal("Book", "users:User*", "user_ids:json")
    assert "two fields have this name" in refusal("Book", "is_a:x|y", "is__a:p|q")
    assert "a table between two models" in refusal("Book", "users:User*", "book_users:str")
    assert "adds deleted_at itself" in refusal("Book", "deleted_at:datetime?", "--soft-delete")


def test_options_that_name_no_reference_are_refused() -> None:
    assert "name a required field, such as book:Book" in refusal(
        "Page2", "a:str", "--nested-in", "book"
    )
    assert "name at least one field" in refusal("Book")
    nested = ["--nested-in", "book"]
    assert "the path needs this name" in refusal("Book", "book:User", "a:str", *nested)
    assert "leave out :unique" in refusal("Book", "book:User:unique", "a:str", *nested)
    assert "write exact or estimated" in refusal("Book", "a:str", "--total", "rough")
    search = ["a:str", "n:int", "q:str:index", "--search"]
    assert "--search b: name a str or a text" in refusal("Book", *search, "b")
    assert "--search n: name a str or a text" in refusal("Book", *search, "a,n")
    assert "name each field once" in refusal("Book", *search, "a,a")
    assert "lists read q from the query" in refusal("Book", *search, "a")
    assert "leave out --search or --total" in refusal("Book", *search, "a", "--total", "exact")


def test_a_row_is_not_a_part_of_its_owner() -> None:
    pytest.importorskip("app.auth")
    options = ["--owned-by", "author", "--nested-in", "author"]

    assert "name two different fields" in refusal("Book", "author:User", "a:str", *options)


def test_a_template_that_gives_no_python_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "generators").mkdir()
    (tmp_path / "generators/mine.py.j2").write_text("f(a=1, a=2)\n", "utf-8")

    with pytest.raises(GenerateError, match="gives code that Python cannot read"):
        Stage(tmp_path, tmp_path).create("app/mine.py", "mine.py")


def test_a_default_may_contain_colons_and_options_may_follow_it() -> None:
    field = parse_field("title:str:default=a:b c:unique", TARGETS)

    assert (field.default, field.unique, field.index) == ("a:b c", True, False)
    assert parse_field("a:str?", TARGETS).optional


@pytest.mark.parametrize(
    ("field", "schema", "database"),
    [
        ("pages:int:default=1_000", "1000", '"1000"'),
        ("price:decimal:default=1000", 'Decimal("1000.00")', '"1000.00"'),
        ("on:date:default=20260101", 'date.fromisoformat("2026-01-01")', '"2026-01-01"'),
        (
            f"key:uuid:default={'A' * 32}",
            'UUID("aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa")',
            f'"{"a" * 32}"',
        ),
    ],
)
def test_a_default_is_written_as_python_and_databases_read_it(
    field: str, schema: str, database: str
) -> None:
    parsed = parse_field(field, TARGETS)

    assert (parsed.python_default, parsed.server_default) == (schema, database)


@pytest.mark.parametrize(
    ("field", "schema", "read"),
    [
        ("data:json?", "StorableJson", "JsonValue | None"),
        ("price:decimal?", "Amount", "Decimal | None"),
    ],
)
def test_a_value_that_a_database_would_convert_is_rejected_only_in_requests(
    field: str, schema: str, read: str
) -> None:
    parsed = parse_field(field, TARGETS)

    assert (parsed.schema("Book"), parsed.read("Book")) == (schema, read)


def test_words_of_sql_are_quoted_in_constraints() -> None:
    assert parse_field("order:str", TARGETS).check() == (
        'CheckConstraint("length(\\"order\\") <= 255", "order_length")'
    )


def test_a_migration_that_fails_is_explained_by_its_error_and_not_by_the_statement() -> None:
    error = "OperationalError: no such table: books"
    output = f"Traceback ...\n{error}\n[SQL: SELECT *\nFROM books\n]\n(Background on this error ..."
    assert last_reason(output) == last_reason(f"{error}\n") == error
    assert last_reason("") == ""


def test_a_wrong_plural_is_refused() -> None:
    with pytest.raises(BadName, match="--plural book_shelves"):
        Names.parse("Book", "Büch er")


def test_a_line_without_a_place_is_left_to_the_owner(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tmp_path)
    (tmp_path / "routers.py").write_bytes(b"routers = []\n")

    stage.insert("routers.py", "    v1.include_router(book)", after_calls_of("v1.include_router"))

    assert stage.left_over == ["routers.py: v1.include_router(book)"]
    assert stage.changed == []


INCLUDE = "    v1.include_router(book)"
PERMISSION = '    BOOKS_READ = "books:read", "See all books"'


@pytest.mark.parametrize(
    "code",
    [
        "",
        "def f(v1):\n  v1.include_router(a)\n  return 1\n",
        "if a:\n        v1.include_router(a)\n        b()\n",
    ],
    ids=["empty", "two spaces", "deeper"],
)
def test_a_line_that_does_not_fit_the_code_is_left_to_the_owner(tmp_path: Path, code: str) -> None:
    (tmp_path / "routers.py").write_bytes(code.encode())
    stage = Stage(tmp_path, tmp_path)

    stage.insert("routers.py", INCLUDE, after_calls_of("v1.include_router"))
    stage.insert("missing.py", INCLUDE, after_calls_of("v1.include_router"))

    assert stage.left_over == [f"{f}.py: v1.include_router(book)" for f in ("routers", "missing")]
    assert stage.changed == []


def test_an_element_is_never_added_after_one_without_a_comma(tmp_path: Path) -> None:
    code = 'PUBLIC_ROUTES = {\n    ("GET", "/a")\n}\n'
    (tmp_path / "permissions.py").write_bytes(code.encode())
    stage = Stage(tmp_path, tmp_path)

    stage.insert("permissions.py", '    ("GET", "/b"),', at_end_of_set("PUBLIC_ROUTES"))

    assert stage.left_over == ['permissions.py: ("GET", "/b"),']


def test_line_ends_of_the_owner_stay(tmp_path: Path) -> None:
    code = "def f(v1):\r\n    a = '\u2028\x0c'\r\n    v1.include_router(a)"
    file = tmp_path / "routers.py"
    file.write_bytes(code.encode())

    Stage(tmp_path, tmp_path).insert("routers.py", INCLUDE, after_calls_of("v1.include_router"))

    assert file.read_bytes().decode() == f"{code}\r\n{INCLUDE}\r\n"


def test_imports_follow_those_of_the_future(tmp_path: Path) -> None:
    code = '"""A model."""\n\nfrom __future__ import annotations\n'
    (tmp_path / "book.py").write_bytes(code.encode())
    stage = Stage(tmp_path, tmp_path)

    stage.add_imports("book.py", "String", {"String": "sqlalchemy"})

    assert stage.read("book.py") == f"{code}from sqlalchemy import String\n"


def test_a_field_named_text_imports_nothing_of_that_name(tmp_path: Path) -> None:
    model = tmp_path / "app/models/tag.py"
    model.parent.mkdir(parents=True)
    model.write_text('class Tag(Base):\n    __tablename__ = "tags"\n\n    name: Mapped[str]\n')
    stage = Stage(tmp_path, tmp_path)

    write_field(stage, Target("Tag", "app.models.tag", "tags"), parse_field("text:text?", {}))

    assert "    text: Mapped[str | None]" in stage.read("app/models/tag.py")
    assert "import text" not in stage.read("app/models/tag.py")


def test_a_field_of_users_is_only_added_to_what_responses_contain() -> None:
    pytest.importorskip("app.auth")

    result = CliRunner().invoke(commands.cli, ["field", "User", "nickname:str?", "--dry-run"])

    assert "in UserRead: nickname: str | None" in result.output
    # The login reads their fields, and knows no others.
    assert re.findall(r"in (User\w+)", result.output) == ["UserRead"]


@pytest.mark.parametrize(
    "arguments", [["permission", "books:lend", "Lend books"], ["resource", "Book", "title:str"]]
)
def test_a_dry_run_does_not_say_what_to_do_next(arguments: list[str]) -> None:
    pytest.importorskip("app.auth")

    output = CliRunner().invoke(commands.cli, [*arguments, "--dry-run"]).output

    assert output.startswith("--- a/")
    assert "grant" not in output.splitlines()[-1]


def test_a_field_of_a_model_elsewhere_is_left_to_the_owner() -> None:
    field = parse_field("note:str?", {})

    with pytest.raises(BadName, match=r"Order is in shop\.models, not in app/models"):
        check_new_field(Target("Order", "shop.models", "orders"), field, "note:str?")


@pytest.mark.parametrize(("config", "table"), [("pyproject.toml", "tool.ruff."), ("ruff.toml", "")])
def test_a_file_is_formatted_as_ruff_does_in_the_project(
    tmp_path: Path, config: str, table: str
) -> None:
    project, folder = tmp_path / "project", tmp_path / "copy"
    (project / "shop").mkdir(parents=True)
    (project / "shop/api.py").touch()
    (project / config).write_text(f"[{table}format]\nquote-style = 'single'\n")
    folder.mkdir()
    imports = "from fastapi import FastAPI\n\nfrom shop import api\n"
    stage = Stage(project, folder)
    stage.write("routers.py", f'{imports}\nprint("x", FastAPI, api)\n')

    stage.format()

    assert stage.read("routers.py") == f"{imports}\nprint('x', FastAPI, api)\n"


def test_a_word_in_a_text_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"""A module."""\n')
    stage = Stage(tmp_path, tmp_path)

    code = (
        'format: Mapped[str] = mapped_column(String(4), default="JSON", server_default="a\\"Text")'
    )
    stage.add_imports("a.py", code, dict.fromkeys(("JSON", "String", "Text"), "sqlalchemy"))

    assert stage.read("a.py").splitlines()[1:] == ["from sqlalchemy import String"]


@pytest.mark.parametrize(
    ("owner", "public", "expected"),
    [
        (None, False, ["books:read", "books:write"]),
        (None, True, ["books:write"]),
        ("author", False, []),  # a login is enough
    ],
)
def test_a_resource_knows_the_permissions_that_its_callers_need(
    owner: str | None, public: bool, expected: list[str]
) -> None:
    options: dict[str, object] = {"auth": True, "owner": owner, "public": public}
    assert commands.needed_permissions(Names.parse("Book"), options) == expected
    assert commands.needed_permissions(Names.parse("Book"), {**options, "auth": False}) == []


def test_a_permission_that_exists_is_not_declared_again(tmp_path: Path) -> None:
    code = f"class PermissionName(StrEnum):\n{PERMISSION}\n"
    (tmp_path / "app").mkdir()
    (tmp_path / "app/permissions.py").write_bytes(code.encode())
    stage = Stage(tmp_path, tmp_path)

    commands.declare_permissions(stage, Names.parse("Book"), {"owner": None, "public": False})

    text = stage.read("app/permissions.py")
    assert text.startswith(code)
    assert text.count("BOOKS_READ") == text.count("BOOKS_WRITE") == 1


def test_two_generators_at_once_do_not_overwrite_each_other(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/a.py").write_bytes(b"a = 1\n")

    (tmp_path / "generators").mkdir()
    with staged(tmp_path) as first, staged(tmp_path) as second:
        first.insert("app/a.py", "b = 2", lambda _: 1)
        second.insert("app/a.py", "c = 3", lambda _: 1)
        first.apply()
        with pytest.raises(GenerateError, match="changed in the meantime"):
            second.apply()

    assert (tmp_path / "app/a.py").read_text("utf-8") == "a = 1\nb = 2\n"


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GenerateError, match="commit the project to git first"):
        check_committed(tmp_path)


# Each run is a fork, which kills itself before its n-th change of the disk.
KILLER = r"""
import os, shutil, signal, sys
from pathlib import Path
from generators.changes import UNFINISHED, finish, write_changes

OLD = {"app/permissions.py": b"a = 1\n", "app/routers.py": b"b = 1\r\n"}
NEW = {"app/routers.py": b"b = 2\n", "app/models/book.py": b"c = 1\n", "app/permissions.py": b"a = 2\n"}
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"}

def write(project, steps):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = steps
    def count(event, arguments):
        nonlocal left
        if event in CHANGES or (event == "open" and "w" in str(arguments[1])):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
    sys.addaudithook(count)
    try:
        write_changes(project, NEW)
    except BaseException:
        os._exit(1)
    os._exit(0)

def read(project):
    return {f: (project / f).read_bytes() for f in NEW if (project / f).exists()}

outcomes = []
for steps in range(1000):
    project = Path(sys.argv[1]) / str(steps)
    for file, content in OLD.items():
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).write_bytes(content)
    (project / "generators").mkdir()
    status = write(project, steps)
    if status == 0:
        break
    assert status == -signal.SIGKILL, status
    finish(project)
    assert read(project) in (OLD, NEW), steps
    outcomes.append(read(project) == NEW)
    if read(project) == OLD:
        write_changes(project, NEW)
    assert (read(project), finish(project), (project / UNFINISHED).exists()) == (NEW, [], False)
print(len(outcomes), sum(outcomes), outcomes == sorted(outcomes))
"""


@pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")
def test_a_command_killed_at_any_step_changes_all_of_its_files_or_none(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLER, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)

    assert run.returncode == 0, run.stderr
    kills, completed, in_order = run.stdout.split()
    assert int(kills) > int(completed) > 4
    assert in_order == "True"


def test_an_interrupted_command_is_not_finished_over_later_changes(tmp_path: Path) -> None:
    (tmp_path / "generators").mkdir()
    (tmp_path / "app.py").write_bytes(b"a = 1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("generators.changes.finish", bool)
        write_changes(tmp_path, {"app.py": b"a = 2\n"})
    (tmp_path / "app.py").write_bytes(b"mine = 1\n")

    with pytest.raises(GenerateError, match="has changed since then; go back with git"):
        finish(tmp_path)

    assert (tmp_path / "app.py").read_bytes() == b"mine = 1\n"
    assert (tmp_path / UNFINISHED / "app.py").read_bytes() == b"a = 2\n"


def test_a_bool_of_a_command_is_an_option() -> None:
    arguments = ["command", "load", "quiet:bool", "folder:str", "--dry-run"]

    output = CliRunner().invoke(commands.cli, arguments).output

    assert "+def load(folder: str, quiet: bool = False) -> None:" in output
    assert "+    run(_load(folder, quiet))" in output
    assert "+async def _load(folder: str, quiet: bool) -> None:" in output


def test_two_commands_do_not_change_a_project_at_once(tmp_path: Path) -> None:
    left_over = tmp_path / "generators/unfinished-1.part"
    left_over.mkdir(parents=True)

    with (
        exclusive_lock(tmp_path),
        pytest.raises(GenerateError, match="another command is changing the project"),
        exclusive_lock(tmp_path),
    ):
        pass

    with exclusive_lock(tmp_path):
        assert not left_over.exists()


def test_a_project_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / "generators/lock.db").mkdir(parents=True)

    with pytest.raises(GenerateError, match=r"lock\.db: unable to open"), exclusive_lock(tmp_path):
        pass


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / UNFINISHED).mkdir(parents=True)
    (tmp_path / UNFINISHED / "other").touch()

    with pytest.raises(GenerateError, match=f"remove {UNFINISHED}"):
        write_changes(tmp_path, {"app.py": b""})
