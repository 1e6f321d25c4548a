"""Old code next to a migration: whether it stays ready, and why not."""

import io
import re
import shutil
from pathlib import Path

import pytest
from alembic import command
from alembic.util import CommandError
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app.cli import cli
from app.core.health import MigrationState
from app.main import create_app
from tests.conftest import ROOT, MakeSettings, alembic_config
from tests.core.revisions import Revisions

BOOKS = """
op.create_table(
    "books",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("title", sa.String(50), nullable=False, server_default=""),
    sa.Column("pages", sa.Integer),
    sa.CheckConstraint("length(title) <= 50", op.f("ck_books_title_length")),
)
"""
ADD_AUTHOR = """
op.create_table("authors", sa.Column("id", sa.Integer, primary_key=True))
with op.batch_alter_table("books") as batch:
    batch.add_column(sa.Column("author", sa.Integer))
    batch.create_foreign_key("fk_author", "authors", ["author"], ["id"])
    batch.create_check_constraint("ck_author", "author > 0")
"""
BATCH = 'with op.batch_alter_table("books") as batch:\n    batch.'


def compatible(revisions: Revisions) -> list[str]:
    return sorted(row[0] for row in revisions.run("SELECT revision FROM alembic_compatible"))


@pytest.mark.parametrize(
    "change",
    [
        'op.add_column("books", sa.Column("author", sa.String(50)))',
        'op.add_column("books", sa.Column("author", sa.Text, nullable=False, server_default="?"))',
        'op.create_index("ix_books_title", "books", ["title"])',
        'op.create_table("authors", sa.Column("id", sa.Integer, primary_key=True))',
        f'{BATCH}alter_column("title", nullable=True)',
        ADD_AUTHOR,
        "op.execute(\"INSERT INTO books (id, title) VALUES (1, 'Emma')\")",
        f'{BATCH}drop_constraint(op.f("ck_books_title_length"))',
    ],
)
def test_old_code_works_after_an_additive_migration(revisions: Revisions, change: str) -> None:
    revisions.migrate(BOOKS)

    revisions.migrate(change)

    assert compatible(revisions) == ["001", "002"]


@pytest.mark.parametrize(
    "change",
    [
        'op.drop_table("books")',
        'op.rename_table("books", "volumes")',
        f'{BATCH}drop_column("pages")',
        f'{BATCH}alter_column("pages", new_column_name="length")',
        f'{BATCH}alter_column("title", type_=sa.String(20))',
        f'{BATCH}alter_column("title", server_default=None)',
        f'{BATCH}alter_column("pages", nullable=False)',
        f'{BATCH}create_check_constraint("ck_books_pages", "pages IS NOT NULL")',
        f'{BATCH}create_unique_constraint("uq_books_title", ["title"])',
        'op.create_index("uq_books_title", "books", ["title"], unique=True)',
        'op.execute("CREATE UNIQUE INDEX uq_books_title ON books (lower(title))")',
        'op.execute("ALTER TABLE books RENAME COLUMN pages TO length")',
    ],
)
def test_old_code_does_not_work_after_a_breaking_migration(
    revisions: Revisions, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    revisions.migrate(BOOKS)

    revisions.migrate(change)

    assert compatible(revisions) == ["002"]
    assert re.search(r"Breaking for code before 002: books[. ]\w+", caplog.text)


def test_a_revision_can_name_the_oldest_code_that_works_with_it(revisions: Revisions) -> None:
    revisions.migrate(BOOKS)
    revisions.migrate('op.add_column("books", sa.Column("author", sa.Text))')
    assert compatible(revisions) == ["001", "002"]

    revisions.write(f'{BATCH}drop_column("pages")')
    declare(revisions, "compatible_since = down_revision")
    revisions.upgrade()

    assert compatible(revisions) == ["002", "003"]


def test_a_revision_can_say_that_it_breaks_all_older_code(revisions: Revisions) -> None:
    """Such as one that writes another meaning into a column."""
    revisions.migrate(BOOKS)

    revisions.write('op.execute("UPDATE books SET pages = -1")')
    declare(revisions, "compatible_since = revision")
    revisions.upgrade()

    assert compatible(revisions) == ["002"]


def test_a_revision_cannot_name_code_that_comes_after_it(revisions: Revisions) -> None:
    revisions.write(BOOKS)
    declare(revisions, 'compatible_since = "002"')

    with pytest.raises(CommandError, match="compatible_since names 002"):
        revisions.upgrade()


def declare(revisions: Revisions, line: str) -> None:
    """Add a line to the newest revision."""
    file = max((revisions.folder / "versions").glob("*.py"))
    file.write_text(file.read_text("utf-8").replace("\n\n\ndef", f"\n{line}\n\n\ndef", 1), "utf-8")


def test_a_downgrade_and_a_stamp_keep_the_list_true(revisions: Revisions) -> None:
    revisions.migrate(BOOKS)
    revisions.migrate('op.add_column("books", sa.Column("author", sa.Text))')
    revisions.migrate('op.drop_table("books")')

    command.downgrade(revisions.config(), "002")
    assert compatible(revisions) == ["002"]
    command.downgrade(revisions.config(), "001")
    assert compatible(revisions) == ["001"]
    command.stamp(revisions.config(), "003")
    assert compatible(revisions) == ["003"]
    command.downgrade(revisions.config(), "base")
    assert compatible(revisions) == []


def test_code_works_with_branches_and_with_their_merge(revisions: Revisions) -> None:
    revisions.migrate(BOOKS)
    revisions.write('op.add_column("books", sa.Column("author", sa.Text))')
    branch = revisions.folder / "versions/branch.py"
    branch.write_text(
        'revision, down_revision = "branch", "001"\n\n\n'
        "def upgrade() -> None: ...\n\n\ndef downgrade() -> None: ...\n"
    )
    command.upgrade(revisions.config(), "heads")
    assert compatible(revisions) == ["001", "002", "branch"]

    command.merge(revisions.config(), "heads", rev_id="merged")
    command.upgrade(revisions.config(), "head")

    assert compatible(revisions) == ["001", "002", "branch", "merged"]


def test_a_database_of_an_older_release_gets_the_list_with_its_next_migration(
    revisions: Revisions,
) -> None:
    revisions.migrate(BOOKS)
    revisions.run("DROP TABLE alembic_compatible")

    revisions.migrate('op.add_column("books", sa.Column("author", sa.Text))')

    assert compatible(revisions) == ["001", "002"]


def test_the_list_is_left_alone_by_autogenerate(revisions: Revisions) -> None:
    revisions.migrate(BOOKS)
    revisions.run("DROP TABLE books")

    revisions.check()


def test_statements_for_another_machine_keep_the_list_too(revisions: Revisions) -> None:
    """They cannot compare two schemas, so each change counts as breaking unless it says so."""
    revisions.migrate(BOOKS)
    revisions.write('op.add_column("books", sa.Column("author", sa.Text))')
    revisions.write('op.add_column("books", sa.Column("year", sa.Integer))')
    declare(revisions, "compatible_since = down_revision")
    output = io.StringIO()
    command.upgrade(revisions.config(output), "001:003", sql=True)

    for statement in output.getvalue().split(";"):
        if statement.strip() and statement.split()[-1] not in {"BEGIN", "COMMIT"}:
            revisions.run(statement)

    assert compatible(revisions) == ["002", "003"]


class Newer:
    """Newer code, with more migrations, that shares the database of the app."""

    def __init__(self, folder: Path, url: str) -> None:
        shutil.copytree(ROOT / "alembic", folder)
        self.folder = folder
        self.config = alembic_config(url)
        self.config.set_main_option("script_location", str(folder))

    def migrate(self, upgrade: str) -> str:
        """The revision to which it has migrated the database."""
        name = f"newer_{len([*self.folder.glob('versions/newer*')])}"
        script = command.revision(self.config, name, rev_id=name)
        file = Path(str(script.path if script and not isinstance(script, list) else ""))
        file.write_text(file.read_text("utf-8").replace("pass", upgrade, 1), "utf-8")
        command.upgrade(self.config, "head")
        return name


ADDITIVE = 'op.add_column("users", sa.Column("nickname", sa.Text))'
BREAKING = 'op.rename_table("users", "people")'


@pytest.fixture
def newer(database_url: str, tmp_path: Path) -> Newer:
    return Newer(tmp_path / "newer", database_url)


def test_r16_old_code_stays_ready_after_an_additive_migration(
    client: TestClient, newer: Newer
) -> None:
    newer.migrate(ADDITIVE)

    assert client.get("/health/ready").status_code == 200
    assert "is running" in client.get("/").text


def test_r16_old_code_is_not_ready_after_a_breaking_migration_and_the_log_says_why(
    client: TestClient, newer: Newer, caplog: pytest.LogCaptureFixture
) -> None:
    newer.migrate(ADDITIVE)
    newer.migrate(BREAKING)

    response = client.get("/health/ready")

    assert response.status_code == 503
    assert response.json()["detail"] == "The database is not at the revision of this release."
    assert "database at newer_1, code at " in caplog.text
    assert "is ahead of this code, which does not work with it" in caplog.text


@pytest.mark.parametrize(
    ("change", "status", "exit_code", "said"),
    [
        (ADDITIVE, 200, 0, "warning migrations: database at newer_0, code at "),
        (BREAKING, 503, 1, "error   migrations: database at newer_0, code at "),
    ],
    ids=["additive", "breaking"],
)
def test_r16_old_code_starts_on_a_newer_database_and_check_says_whether_it_works(
    make_settings: MakeSettings,
    newer: Newer,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    status: int,
    exit_code: int,
    said: str,
) -> None:
    newer.migrate(change)
    monkeypatch.setenv("DATABASE_URL", database_url)

    with TestClient(create_app(make_settings(environment="production"))) as client:
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/ready").status_code == status
    result = CliRunner().invoke(cli, ["check"])

    assert (result.exit_code, said in result.output) == (exit_code, True), result.output


def test_r16_new_code_is_not_ready_before_its_migration(client: TestClient, newer: Newer) -> None:
    newer.migrate(ADDITIVE)
    command.downgrade(newer.config, "-2")

    assert client.get("/health/ready").status_code == 503


def test_old_code_starts_and_its_upgrade_changes_nothing_on_a_newer_database(
    database_url: str, newer: Newer, caplog: pytest.LogCaptureFixture
) -> None:
    """So that a release that runs its migrations first can be rolled back."""
    newer.migrate(ADDITIVE)

    command.upgrade(alembic_config(database_url), "head")

    assert "The database is ahead of this code, which works with it" in caplog.text


def test_the_upgrade_of_old_code_fails_on_a_database_that_it_does_not_work_with(
    database_url: str, newer: Newer
) -> None:
    newer.migrate(BREAKING)

    with pytest.raises(CommandError, match="at newer_0, a migration that alembic/versions lacks"):
        command.upgrade(alembic_config(database_url), "head")


def test_a_list_that_older_code_has_not_kept_says_nothing() -> None:
    """Releases without the list migrate, too, such as after a roll-back of an update."""
    old, database = frozenset("b"), frozenset("d")

    state = MigrationState(frozenset("ab"), old, database, frozenset("bc"))

    assert not state.is_ready
    assert "or belongs to another project" in str(state)
