"""Moving a migration that arrived, in a real git repository and without Copier around it."""

import subprocess
from pathlib import Path

import pytest

from migrations import UndecidedError, reparent, restore_committed
from tests.update.edits import git

PLAIN = '"""{0}\n\nRevises: {1}\n"""\n\nrevision = "{0}"\ndown_revision = "{1}"\n'
FIRST = 'revision = "a"\ndown_revision = None\n'


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """The template's revision a, followed by the owner's b."""
    folder = tmp_path / "My Projects ü & co"
    (folder / "alembic/versions").mkdir(parents=True)
    git(folder, "init", "--quiet")
    write(folder, "a", FIRST)
    write(folder, "b", PLAIN.format("b", "a"))
    save(folder)
    return folder


def write(shelf: Path, name: str, text: str) -> Path:
    file = shelf / f"alembic/versions/{name}.py"
    file.write_bytes(text.encode())
    return file


def save(shelf: Path) -> None:
    git(shelf, "add", "--all")
    git(shelf, "commit", "--quiet", "-m", "Work")


def test_what_arrived_moves_and_what_is_committed_stays(shelf: Path) -> None:
    c = write(shelf, "c", PLAIN.format("c", "a"))
    d = write(shelf, "d", PLAIN.format("d", "c"))

    assert reparent(shelf) == ["migrations: c now follows b, your last one"]

    assert c.read_text() == PLAIN.format("c", "b")
    assert d.read_text() == PLAIN.format("d", "c")
    assert git(shelf, "diff", "--name-only") == ""


def test_a_second_run_moves_nothing(shelf: Path) -> None:
    write(shelf, "c", PLAIN.format("c", "a"))
    reparent(shelf)

    assert reparent(shelf) == []


def test_it_moves_again_with_the_next_release(shelf: Path) -> None:
    write(shelf, "c", PLAIN.format("c", "a"))
    reparent(shelf)
    save(shelf)
    write(shelf, "e", PLAIN.format("e", "c"))
    save(shelf)
    late = write(shelf, "d", PLAIN.format("d", "c"))

    reparent(shelf)

    assert 'down_revision = "e"' in late.read_text()


@pytest.mark.parametrize(
    "text",
    [
        'revision: str = "c"\ndown_revision: str | None = "a"\n',
        "# ü\r\nrevision = 'c'\r\ndown_revision = 'a'\r\n",
        'revision = "c"\ndown_revision = "a"  # ü\n',
        'revision = "c"\ndown_revision = None\n',
    ],
    ids=["with types", "Windows", "with a comment", "without a parent"],
)
def test_it_moves_however_it_is_written(shelf: Path, text: str) -> None:
    file = write(shelf, "c", text)

    reparent(shelf)

    moved = file.read_bytes().decode()
    assert "down_revision" in moved
    assert '"b"' in moved
    assert moved.count("\n") == text.count("\n")
    assert moved.count("\r") == text.count("\r")
    assert ("ü" in moved) == ("ü" in text)


def test_a_project_without_migrations_of_its_own_keeps_the_templates_order(shelf: Path) -> None:
    git(shelf, "rm", "--quiet", "alembic/versions/b.py")
    save(shelf)
    c = write(shelf, "c", PLAIN.format("c", "a"))

    assert reparent(shelf) == []
    assert c.read_text() == PLAIN.format("c", "a")


def test_of_two_ends_neither_is_guessed(shelf: Path) -> None:
    write(shelf, "x", PLAIN.format("x", "a"))
    save(shelf)
    c = write(shelf, "c", PLAIN.format("c", "a"))

    with pytest.raises(UndecidedError, match=r"have several heads \(b, x\).*alembic merge b x -m"):
        reparent(shelf)

    assert c.read_text() == PLAIN.format("c", "a")


def test_a_fork_that_arrived_is_not_guessed_at(shelf: Path) -> None:
    c = write(shelf, "c", PLAIN.format("c", "a"))
    write(shelf, "d", PLAIN.format("d", "c"))
    write(shelf, "e", PLAIN.format("e", "c"))

    with pytest.raises(UndecidedError, match="Several lines"):
        reparent(shelf)

    assert c.read_text() == PLAIN.format("c", "a")


def test_two_ends_are_named_also_when_nothing_arrived(shelf: Path) -> None:
    write(shelf, "x", PLAIN.format("x", "a"))
    save(shelf)

    with pytest.raises(UndecidedError, match=r"\(b, x\)"):
        reparent(shelf)


def test_files_that_are_no_revisions_are_left_alone(shelf: Path) -> None:
    write(shelf, "helpers", "x = 1\n")
    save(shelf)
    write(shelf, "more_helpers", "x = 1\n")

    assert reparent(shelf) == []


@pytest.mark.parametrize(
    "text", ["\ufeff{}", "# coding: latin-1\n# {{}}\n{}"], ids=["BOM", "latin-1"]
)
def test_an_own_revision_may_have_any_encoding_that_python_reads(shelf: Path, text: str) -> None:
    file = shelf / "alembic/versions/b.py"
    content = text.format(PLAIN.format("b", "a"))
    file.write_bytes(
        content.encode("utf-8" if "\ufeff" in text else "latin-1").replace(b"{}", b"\xfc")
    )
    save(shelf)
    c = write(shelf, "c", PLAIN.format("c", "a"))

    reparent(shelf)

    assert c.read_text() == PLAIN.format("c", "b")


@pytest.mark.parametrize(
    "text",
    ["broken (", 'PARENT = "a"\nrevision = "b"\ndown_revision = PARENT\n'],
    ids=["broken", "computed"],
)
def test_an_own_revision_that_only_alembic_can_read_is_named(shelf: Path, text: str) -> None:
    write(shelf, "b", text)
    save(shelf)
    c = write(shelf, "c", PLAIN.format("c", "a"))

    with pytest.raises(UndecidedError, match=r"alembic/versions/b\.py can't be read"):
        reparent(shelf)

    assert c.read_text() == PLAIN.format("c", "a")


def test_one_that_only_alembic_can_read_stops_nothing_when_none_arrived(shelf: Path) -> None:
    write(shelf, "b", 'PARENT = "a"\nrevision = "b"\ndown_revision = PARENT\n')
    save(shelf)

    assert reparent(shelf) == []


def test_a_migration_that_the_template_renames_does_not_come_back(shelf: Path) -> None:
    git(shelf, "mv", "alembic/versions/a.py", "alembic/versions/a_init.py")

    assert restore_committed(shelf) == []
    assert not (shelf / "alembic/versions/a.py").exists()


def test_revisions_in_folders_below_are_seen_and_left_where_they_are(shelf: Path) -> None:
    below = shelf / "alembic/versions/2025"
    below.mkdir()
    git(shelf, "mv", "alembic/versions/b.py", "alembic/versions/2025/b.py")
    save(shelf)
    c = write(shelf, "c", PLAIN.format("c", "a"))

    assert restore_committed(shelf) == []
    assert reparent(shelf) == ["migrations: c now follows b, your last one"]
    assert c.read_text() == PLAIN.format("c", "b")


def test_migrations_that_are_elsewhere_are_asked_for(shelf: Path) -> None:
    git(shelf, "mv", "alembic", "migrations")
    save(shelf)
    (shelf / "alembic/versions").mkdir(parents=True)
    write(shelf, "c", PLAIN.format("c", "a"))

    with pytest.raises(UndecidedError, match="keep yours elsewhere"):
        reparent(shelf)


def test_a_committed_revision_that_the_template_has_otherwise_stays_as_it_is(shelf: Path) -> None:
    """An option that is turned on again brings its migration as the template has it."""
    git(shelf, "checkout", "--quiet", "-b", "template", "HEAD~0")
    write(shelf, "b", PLAIN.format("b", "theirs"))
    save(shelf)
    git(shelf, "checkout", "--quiet", "-")
    own = write(shelf, "b", PLAIN.format("b", "mine"))
    save(shelf)
    merge = ["git", "merge", "template"]
    subprocess.run(merge, cwd=shelf, check=False, capture_output=True)
    assert "<<<<<<<" in own.read_text()

    assert restore_committed(shelf) == []

    assert own.read_text() == PLAIN.format("b", "mine")
    assert git(shelf, "ls-files", "--unmerged") == ""
