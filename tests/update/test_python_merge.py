"""What the owner and the template changed in one Python file, merged statement by statement."""

import ast
from pathlib import Path

import pytest

from moved_files import merge_statements
from python_merge import own_part
from tests.support.projects import Generate, Project
from tests.update.conftest import Start
from tools.moved_names import Table
from tools.python_source import Import, add_imports

SETTINGS = '''"""Settings."""

from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    one: int = 1
    two: int = 2

    def method(self) -> None: ...
'''
# The template has moved its own fields to another class.
MOVED = '''"""Yours."""

from app.core.settings import CoreSettings


class Settings(CoreSettings):
    """Your settings."""


load_settings = Settings.load
'''


def merge(
    tmp_path: Path, before: str, yours: str, template: str | None, **others: str
) -> str | None:
    """The merged text of app/x.py; None if it stays a conflict. `others` are files of app/core."""
    (tmp_path / "app/core").mkdir(parents=True)
    for name, text in others.items():
        (tmp_path / f"app/core/{name}.py").write_text(text)
    table = Table(
        modules={"app.y": "app.core.y"}, names={"app.x.Fault": "app.core.errors.FieldError"}
    )
    if merge_statements(tmp_path, table, "app/x.py", before, yours, template) is None:
        assert not (tmp_path / "app/x.py").exists()
        return None
    file = tmp_path / "app/x.py"
    return file.read_text() if file.exists() else ""


def added(text: str, after: str, lines: str) -> str:
    assert after in text
    return text.replace(after, after + lines, 1)


def test_a_field_goes_into_the_class_that_lost_its_neighbors(tmp_path: Path) -> None:
    yours = added(SETTINGS, "    one: int = 1\n", "    # Of oak.\n    shelf: str = 'oak'  # mine\n")

    assert merge(tmp_path, SETTINGS, yours, MOVED) == added(
        MOVED, '    """Your settings."""\n', "\n    # Of oak.\n    shelf: str = 'oak'  # mine\n"
    )


def test_a_statement_goes_behind_the_neighbor_that_it_had(tmp_path: Path) -> None:
    before = "def f():\n    a = 1\n    b = 2\n    return a\n"
    template = "def f():\n    # New.\n    a = 1\n    c = 3\n    return a\n"

    merged = merge(tmp_path, before, added(before, "a = 1\n", "    mine = a\n"), template)

    assert merged == added(template, "a = 1\n", "    mine = a\n")


def test_a_statement_without_neighbors_goes_before_the_return(tmp_path: Path) -> None:
    before = "def f():\n    a = 1\n    return 1\n"
    template = "def f():\n    c = 3\n    return 2\n"

    merged = merge(tmp_path, before, added(before, "a = 1\n", "    mine = 1\n"), template)

    assert merged == "def f():\n    c = 3\n    mine = 1\n    return 2\n"


def test_functions_get_the_blank_lines_of_a_formatter(tmp_path: Path) -> None:
    before = "a = 1\n\n\ndef f(): ...\n\n\nb = 1\n"
    yours = added(before, "def f(): ...\n", "\n\ndef mine(): ...\n\n\n# Also mine.\nx = 1\n")

    merged = merge(tmp_path, before, yours, "a = 2\n\n\ndef f(): ...\n\n\nc = 1\n")

    assert merged == (
        "a = 2\n\n\ndef f(): ...\n\n\ndef mine(): ...\n\n\n# Also mine.\nx = 1\n\n\nc = 1\n"
    )


def test_the_owners_value_stays_where_the_template_left_the_statement_alone(
    tmp_path: Path,
) -> None:
    before, template = "a = 1\nb = [1]\nc = 1\n", "import os\n\na = 1\nb = [1]\nd = os\n"

    merged = merge(tmp_path, before, "a = 5\nb = [1, 2]\nc = 1\n", template)

    assert merged == "import os\n\na = 5\nb = [1, 2]\nd = os\n"


@pytest.mark.parametrize(
    ("before", "yours", "template", "merged"),
    [
        ("{\n    1,\n}", "{\n    1,\n    5,\n}", "{\n    2,\n}", "{\n    2,\n    5,\n}"),
        ("[1]", "[1, 5]", "[1, 2]", "[1, 2, 5]"),
        ("{1: 'a'}", "{1: 'a', 5: 'e'}", "{2: 'b'}", "{2: 'b', 5: 'e'}"),
    ],
    ids=["set", "list", "dictionary"],
)
def test_elements_of_both_are_kept(
    tmp_path: Path, before: str, yours: str, template: str, merged: str
) -> None:
    sides = [f"X = {value}\n" for value in (before, yours, template)]

    assert merge(tmp_path, *sides) == f"X = {merged}\n"


def test_an_import_that_only_the_owner_needs_comes_back(tmp_path: Path) -> None:
    before = "from fastapi import Depends, Request\n\nx = Request\ny = Depends\n"
    yours = added(before, "y = Depends\n", "\n\ndef mine(request: Request): ...\n")

    merged = merge(tmp_path, before, yours, "from fastapi import Depends\n\ny = Depends\n")

    assert merged == (
        "from fastapi import Depends, Request\n\ny = Depends\n\n\ndef mine(request: Request): ...\n"
    )


def test_an_import_of_the_owners_replaces_that_of_the_same_name(tmp_path: Path) -> None:
    before = "from app.a import router as home\nfrom app.b import b\n\nhome, b\n"
    yours = before.replace("app.a", "app.mine")
    template = "from app.a import router as home\nfrom app.c import c\n\nhome, c\n"

    merged = merge(tmp_path, before, yours, template)

    assert merged == "from app.c import c\nfrom app.mine import router as home\n\nhome, c\n"


def test_an_import_is_added_where_it_is_sorted_and_leaves_comments_where_they_are() -> None:
    source = "import sys  # noqa\n\nfrom app.b import b\n# About d.\nfrom app.d import d\n"
    wanted = [
        Import("", "time", None),
        Import("pytest", "raises", None),
        Import("app.c", "c", None),
    ]

    assert add_imports(source, wanted) == (
        "import sys  # noqa\nimport time\n\nfrom pytest import raises\n\n"
        "from app.b import b\nfrom app.c import c\n# About d.\nfrom app.d import d\n"
    )


def test_a_constant_that_only_the_owner_needs_comes_back(tmp_path: Path) -> None:
    before = "import logging\n\nlogger = logging.getLogger()\na = 1\nlogger.info(a)\n"
    yours = added(before, "a = 1\n", "logger.error(a)\n")

    merged = merge(tmp_path, before, yours, "import os\n\na = os.sep\n")

    assert merged == (
        "import logging\nimport os\n\nlogger = logging.getLogger()\n\na = os.sep\nlogger.error(a)\n"
    )


def test_a_name_that_moved_is_imported_from_its_new_place(tmp_path: Path) -> None:
    before = "class Fault: ...\n\n\na = 1\n"
    yours = added(before, "a = 1\n", "print(Fault)\n")

    merged = merge(tmp_path, before, yours, "a = 2\n")

    assert merged == ("from app.core.errors import FieldError as Fault\n\n\na = 2\nprint(Fault)\n")


def test_code_that_uses_a_function_that_is_gone_stays_a_conflict(tmp_path: Path) -> None:
    before = "def f(): ...\n\n\na = 1\n"

    assert merge(tmp_path, before, added(before, "a = 1\n", "f()\n"), "a = 2\n") is None


ERRORS = "class NotFound(Exception):\n    detail = 'Nothing.'\n\n\nclass Fault:\n    loc = 1\n"


def test_a_change_of_what_moved_goes_to_the_new_place(tmp_path: Path) -> None:
    yours = added(ERRORS.replace("Nothing.", "Sorry."), "    loc = 1\n", "    mine = 1\n")
    moved = ERRORS.replace("Fault", "FieldError").replace("Nothing.", "Not found.")
    template = "from app.core.errors import NotFound as NotFound\n"

    assert merge(tmp_path, ERRORS, yours, template, errors=moved) == template

    merged = added(moved.replace("Not found.", "Sorry."), "    loc = 1\n", "    mine = 1\n")
    assert (tmp_path / "app/core/errors.py").read_text() == merged


@pytest.mark.parametrize(
    ("yours", "template"),
    [
        (SETTINGS.replace("two: int = 2", "two: int = 3"), MOVED),
        (
            added(SETTINGS, "    two: int = 2\n", "    three: int = 3\n"),
            added(SETTINGS, "    two: int = 2\n", "    three: int = 4\n"),
        ),
        (SETTINGS.replace("int = 1", "int = 3"), SETTINGS.replace("int = 1", "int = 4")),
        (SETTINGS.replace("(BaseSettings)", "(Mine)"), MOVED),
        (SETTINGS.replace("    one: int = 1\n", ""), SETTINGS.replace("int = 1", "int = 4")),
        (SETTINGS.replace("one: int = 1", "one: int = 1; x = 1"), MOVED),
        ("broken (", MOVED),
    ],
    ids=["gone", "both added", "both changed", "bases", "removed", "one line", "broken"],
)
def test_what_is_ambiguous_stays_a_conflict(tmp_path: Path, yours: str, template: str) -> None:
    assert merge(tmp_path, SETTINGS, yours, template) is None


@pytest.fixture
def of_today(generate: Generate) -> Project:
    return generate(auth=True, github=True)


def test_permissions_become_members_of_the_enumeration(
    start: Start, of_today: Project, tmp_path: Path
) -> None:
    before = start("v0.6.0").read("app/permissions.py")
    yours = before.replace("]\n\nPERM", '    "books:read",\n]\n\nPERM')
    yours = yours.replace("}\n\n", '    "books:read": "See books",\n}\n\n')
    new = of_today.read("app/permissions.py")

    notes = merge_statements(tmp_path, Table(), "permissions.py", before, yours, new)

    assert notes == []
    merged = (tmp_path / "permissions.py").read_text()
    assert '    BOOKS_READ = "books:read", "See books"\n' in merged
    assert merged.replace('    BOOKS_READ = "books:read", "See books"\n', "") == new
    ast.parse(merged)


def test_two_statements_at_one_place_keep_their_order(tmp_path: Path) -> None:
    before = "def f(app):\n    app.old()\n"
    yours = "def f(app):\n    x = make()\n    app.include(x)\n    app.old()\n"

    merged = merge(tmp_path, before, yours, "def f(app):\n    app.new()\n")

    assert merged is not None
    assert merged.index("x = make()") < merged.index("app.include(x)")


@pytest.mark.parametrize(
    ("before", "yours", "template"),
    [
        ('X = {"A": "1"}\n', 'X = {"A": "mine"}\n', 'X = {"A": "1", "C": "3"}\n'),
        (
            "X = [\n    1,\n]\n",
            "X = [\n    # Why.\n    2,\n    1,\n]\n",
            "X = [\n    1,\n    3,\n]\n",
        ),
        ("X = [1, 2]\n", "X = [2, 1, 4]\n", "X = [1, 2, 3]\n"),
        ("X: list[int] = [1]\n", "X: list[str] = [1]\n", "X: list[int] = [1, 3]\n"),
        ("X = [1]\n", "X = tuple([1, 2])\n", "X = [1, 3]\n"),
        ('X = "a"\n', 'X = "mine"  # why\n', 'X = "b"\n'),
        ("a()\nb()\n", "b()\na()\n", "a()\nb()\nc()\n"),
        (
            "def f(a):\n    return a\n",
            "def f(a):\n    x = a\n    return x\n",
            "def f(a):\n    return a + 1\n",
        ),
        ("import a\n\nX = 1\n", "import a\nimport b  # noqa\n\nX = 1\n", "import c\n\nX = 2\n"),
    ],
    ids=[
        "a changed value",
        "a comment on an element",
        "moved elements",
        "an annotation",
        "another container",
        "a comment on a text",
        "moved statements",
        "a statement that both replaced",
        "a comment on an import",
    ],
)
def test_what_could_be_lost_stays_a_conflict(
    tmp_path: Path, before: str, yours: str, template: str
) -> None:
    assert merge(tmp_path, before, yours, template) is None


def test_a_changed_test_of_the_template_that_is_gone_is_shown_and_no_conflict(
    tmp_path: Path,
) -> None:
    before = "def test_one() -> None:\n    assert 1\n\n\ndef test_two() -> None:\n    assert 2\n"
    yours = before.replace("assert 1", "assert 11").replace("assert 2", "assert 22")
    yours += "\n\ndef test_mine() -> None:\n    assert 3\n"
    new = "def test_two() -> None:\n    assert 2 + 2\n"
    (tmp_path / "tests").mkdir()

    notes = merge_statements(tmp_path, Table(), "tests/test_a.py", before, yours, new)

    assert notes == [
        "tests/test_a.py: the template no longer has test_one. Your changes of it are gone:",
        "    -    assert 1",
        "    +    assert 11",
        "tests/test_a.py: the template changed test_two. Your changes of it are gone:",
        "    -    assert 2",
        "    +    assert 22",
    ]
    merged = (tmp_path / "tests/test_a.py").read_text()
    assert merged == f"{new}\n\ndef test_mine() -> None:\n    assert 3\n"
    assert merge_statements(tmp_path, Table(), "app/a.py", before, yours, new) is None


def test_what_the_owner_added_to_a_file_is_kept_with_what_it_uses() -> None:
    before = (
        "import os\nimport re\n\nA = 1\nB = 2\n\n\ndef fixture(): ...\n\n\ndef test_one(): ...\n"
    )
    yours = f"{before}\n\ndef test_mine(fixture):\n    return os, B\n"

    own, rest = own_part(before, yours)

    assert own == (
        "import os\n\n\nB = 2\n\n\ndef fixture(): ...\n\n\n"
        "def test_mine(fixture):\n    return os, B\n"
    )
    assert rest == own_part(before, before)[1]
    assert own_part(before, before.replace("A = 1", "A = 3"))[0] == ""
