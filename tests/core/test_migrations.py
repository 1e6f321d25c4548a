"""Migrations, the backups that they make, and what the health checks say about them."""

import io
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.util import CommandError
from fastapi.testclient import TestClient
from sqlalchemy import create_engine

from app.core import backup, health, migrations
from app.core.database import synchronous_url
from app.core.health import MigrationState
from app.models import metadata
from tests.conftest import alembic_config
from tests.core.revisions import Revisions

ALEMBIC = Path(__file__).parents[2] / "alembic"
INSERT_ADA = """
INSERT INTO users (id, username, email, password, is_active)
VALUES (1, 'ada', 'ada@example.com', 'hash', true)
"""


def test_an_empty_database_can_be_stamped(tmp_path: Path) -> None:
    config = alembic_config(f"sqlite:///{tmp_path / 'empty.db'}")

    command.stamp(config, "head")

    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


def test_x10_liveness_does_not_need_a_database(client: TestClient, database: Path) -> None:
    database.unlink()

    assert client.get("/health/live").json() == {"status": "ok"}


def test_x10_the_app_is_ready_at_the_head_revision(client: TestClient) -> None:
    assert client.get("/health/ready").json() == {"status": "ok"}


def test_the_app_is_not_ready_without_a_database_and_creates_none(
    client: TestClient, database: Path
) -> None:
    database.unlink()

    assert client.get("/health/ready").status_code == 503
    assert not database.exists()


def test_the_app_is_not_ready_while_migrations_are_missing(
    client: TestClient, database_url: str
) -> None:
    command.downgrade(alembic_config(database_url), "base")

    response = client.get("/health/ready")

    assert response.status_code == 503
    assert response.json()["detail"] == "The database is not at the revision of this release."


def test_readiness_follows_merges_and_dependencies_as_alembic_does(
    client: TestClient, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(ALEMBIC, tmp_path / "alembic"))
    monkeypatch.setattr(health, "_ALEMBIC", folder)
    config = alembic_config(database_url)
    config.set_main_option("script_location", str(folder))
    (head,) = health._code_revisions()[1]

    def add(revision: str, follows: str | tuple[str, ...] | None, depends_on: str = "") -> None:
        (folder / f"versions/{revision}.py").write_text(
            f"revision, down_revision, depends_on = {revision!r}, {follows!r}, {depends_on!r}\n"
            "def upgrade() -> None: ...\ndef downgrade() -> None: ...\n"
        )

    def assert_ready_after_an_upgrade() -> None:
        assert client.get("/health/ready").status_code == 503
        command.upgrade(config, "heads")
        assert client.get("/health/ready").status_code == 200

    add("a", head)
    add("b", head)
    assert_ready_after_an_upgrade()
    add("merged", ("a", "b"))
    assert_ready_after_an_upgrade()
    add("other_branch", None, depends_on="merged")
    assert_ready_after_an_upgrade()


GENRES = """
from app.core.seed_data import register_seed_rows

Table("genres", metadata, Column("id", Integer, primary_key=True), Column("name", Text, unique=True))
register_seed_rows(metadata, "genres", "name", [{"name": "crime"}])
"""
CREATE_GENRES = """
op.create_table(
    "genres",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, unique=True),
)
"""


def test_seed_rows_are_added_if_one_branch_depends_on_another(revisions: Revisions) -> None:
    """Alembic then stores the dependent revision only, though both branches end in a head."""
    revisions.write_models(GENRES)
    revisions.write(CREATE_GENRES)
    (revisions.folder / "versions/other.py").write_text(
        "revision, down_revision, depends_on = 'other', None, '001'\n"
        "def upgrade() -> None: ...\ndef downgrade() -> None: ...\n"
    )

    command.upgrade(revisions.config(), "heads")

    assert revisions.run("SELECT name FROM genres") == [("crime",)]


@pytest.mark.parametrize("target", ["head", "heads"])
def test_printed_sql_has_the_seed_rows(revisions: Revisions, target: str) -> None:
    revisions.write_models(GENRES)
    revisions.write(CREATE_GENRES)
    output = io.StringIO()

    command.upgrade(revisions.config(output), target, sql=True)

    assert "VALUES ('crime')" in output.getvalue()


@pytest.mark.filterwarnings("ignore:Revision gone")
def test_the_app_is_not_ready_while_a_migration_is_invalid(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(ALEMBIC, tmp_path / "alembic"))
    monkeypatch.setattr(health, "_ALEMBIC", folder)
    (folder / "versions/broken.py").write_text('revision, down_revision = "broken", "gone"\n')

    assert client.get("/health/ready").status_code == 503
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("revision", "expected"),
    [("a", "behind"), ("", "behind"), ("z", "ahead"), ("b", "code at b")],
)
def test_a_database_is_behind_ahead_or_at_the_head(revision: str, expected: str) -> None:
    state = MigrationState(frozenset("ab"), frozenset("b"), frozenset(filter(None, [revision])))

    assert expected in str(state)
    assert state.at_head == (revision == "b")


def test_two_heads_are_explained() -> None:
    state = MigrationState(frozenset("ab"), frozenset("ab"), frozenset("a"))

    assert "alembic merge heads" in str(state)


def test_i14_a_public_id_is_never_given_again(database_url: str) -> None:
    """Not even that of the newest row, which SQLite gives again by default."""
    engine = create_engine(synchronous_url(database_url))
    values = {"name": "x", "description": "", "username": "x", "email": "x", "password": ""}
    with engine.begin() as connection:
        for name in ("permissions", "users"):
            table = metadata.tables[name]
            row = {key: value for key, value in values.items() if key in table.columns}
            insert = table.insert().values(row).returning(table.c.id)
            first = connection.scalars(insert).one()
            connection.execute(table.delete().where(table.c.id == first))
            assert connection.scalars(insert).one() == first + 1, name
    engine.dispose()


def test_i14_models_and_migrations_agree_on_ids(database: Path) -> None:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    query = "SELECT name FROM sqlite_master WHERE sql LIKE '% AUTOINCREMENT%' ORDER BY name"

    with engine.connect() as connection:
        modeled = connection.exec_driver_sql(query).all()
    engine.dispose()
    with closing(sqlite3.connect(database)) as connection_:
        migrated = connection_.execute(query).fetchall()

    assert [*modeled] == migrated
    assert {"permissions", "users"} <= {name for (name,) in migrated}


def test_i14_users_of_an_earlier_release_keep_all_that_belongs_to_them(database: Path) -> None:
    config = alembic_config(f"sqlite:///{database}")
    command.downgrade(config, "base")
    command.upgrade(config, "8ded3252ce31")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executescript(f"""
            ALTER TABLE users ADD COLUMN shelf TEXT DEFAULT 'oak';
            CREATE INDEX own_index ON users (lower(shelf));
            CREATE VIEW own_view AS SELECT username, shelf FROM users;
            CREATE TABLE own_log (id INTEGER PRIMARY KEY, username TEXT);
            CREATE TRIGGER own_trigger AFTER DELETE ON users
                BEGIN INSERT INTO own_log (username) VALUES (old.username); END;
            {INSERT_ADA};
            INSERT INTO permissions VALUES (1, 'books:read', '');
            INSERT INTO user_permissions VALUES (1, 1);
        """)

    command.upgrade(config, "head")

    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        assert connection.execute("SELECT * FROM own_view").fetchall() == [("ada", "oak")]
        assert connection.execute("SELECT * FROM user_permissions").fetchall() == [(1, 1)]
        connection.execute("DELETE FROM users")
        assert connection.execute("SELECT username FROM own_log").fetchall() == [("ada",)]
        assert connection.execute("SELECT * FROM user_permissions").fetchall() == []
        connection.execute(INSERT_ADA.replace("(id, ", "(").replace("(1, ", "("))
        assert connection.execute("SELECT id FROM users").fetchall() == [(2,)]
        query = "SELECT name FROM sqlite_master WHERE name LIKE 'own%' ORDER BY name"
        names = ["own_index", "own_log", "own_trigger", "own_view"]
        assert [name for (name,) in connection.execute(query)] == names


def test_nothing_is_migrated_when_the_backup_fails(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(INSERT_ADA)
    (database.parent / "backups").write_text("a file in the way")

    with pytest.raises(FileExistsError):
        command.downgrade(alembic_config(f"sqlite:///{database}"), "base")

    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (1,)


@pytest.mark.parametrize("name", ["upgrade", "downgrade", "current", "check"])
def test_a_database_with_the_migration_of_another_branch_is_explained(
    database: Path, name: str
) -> None:
    config = alembic_config(f"sqlite:///{database}")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'a1b2c3d4e5f6'")
    arguments = {"upgrade": ["head"], "downgrade": ["-1"]}.get(name, [])

    with pytest.raises(CommandError, match=r"at a1b2c3d4e5f6, .* `alembic downgrade`, or restore"):
        getattr(command, name)(config, *arguments)

    command.stamp(config, "head", purge=True)
    command.check(config)


def test_a_migration_backs_up_the_rows_before_it(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(INSERT_ADA)

    command.downgrade(alembic_config(f"sqlite:///{database}"), "base")

    (copy,) = (database.parent / "backups").iterdir()
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT username FROM users").fetchall() == [("ada",)]


def run(command: list[str]) -> None:
    subprocess.run(command, check=True)


def during_the_copy(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    """Do this when the first copy is complete, but the migration has not noticed yet."""
    real, pending = backup.back_up, [do]

    def back_up(source: Path, target: Path) -> None:
        real(source, target)
        if pending:
            pending.pop()()

    monkeypatch.setattr(migrations, "back_up", back_up)


@pytest.mark.parametrize("change", [command.downgrade, command.upgrade])
def test_r22_others_can_write_while_a_migration_copies_the_database(
    database: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
) -> None:
    config = alembic_config(f"sqlite:///{database}")
    target = "base" if change is command.downgrade else "head"
    if change is command.upgrade:
        command.downgrade(config, "8ded3252ce31")

    def write() -> None:
        with closing(sqlite3.connect(database, timeout=0)) as connection, connection:
            connection.execute(INSERT_ADA.replace("1, 'ada', 'ada@", "2, 'eve', 'eve@"))

    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(INSERT_ADA)
    during_the_copy(monkeypatch, write)

    change(config, target)

    assert len([*(database.parent / "backups").iterdir()]) == 1


def test_r22_a_second_copy_is_made_if_another_migration_has_come_first(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{database}"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(INSERT_ADA)
    revert = [sys.executable, "-m", "alembic", "-x", f"url={url}", "downgrade", "8ded3252ce31"]
    during_the_copy(monkeypatch, lambda: run(revert))

    command.downgrade(alembic_config(url), "base")

    revisions = []
    for copy in (database.parent / "backups").iterdir():
        with closing(sqlite3.connect(copy)) as connection:
            revisions += connection.execute("SELECT version_num FROM alembic_version").fetchone()
    (head,) = health._code_revisions()[1]
    assert sorted(revisions) == sorted([head, head, "8ded3252ce31"])


def test_r22_a_command_that_changes_nothing_copies_nothing(database: Path) -> None:
    config = alembic_config(f"sqlite:///{database}")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(INSERT_ADA)

    command.upgrade(config, "head")
    command.stamp(config, "head")
    command.current(config)
    command.check(config)

    assert not (database.parent / "backups").exists()


def test_an_upgrade_that_has_nothing_to_do_leaves_the_file_as_it_is(database: Path) -> None:
    before = database.read_bytes()

    command.upgrade(alembic_config(f"sqlite:///{database}"), "head")

    assert database.read_bytes() == before


def test_r22_a_migration_says_what_it_copies_before_it_does(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(INSERT_ADA)
    size = backup.size_of_copy(database) / 1e6

    with caplog.at_level("INFO"):
        command.downgrade(alembic_config(f"sqlite:///{database}"), "base")

    lines = [line for line in caplog.messages if line.startswith(("Back", "Running"))]
    assert lines[0] == f"Backing up {database} ({size:.1f} MB)"
    assert lines[1].startswith(f"Backed up to {database.parent / 'backups'}")
    assert lines[2].startswith("Running downgrade")


def test_r22_nothing_is_migrated_if_the_copy_needs_more_space_than_there_is(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(INSERT_ADA)
    usage = shutil.disk_usage(database.parent)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(CommandError, match=r"Nothing was .* needs 0\.\d MB, and .* has 0\.0 MB"):
        command.downgrade(alembic_config(f"sqlite:///{database}"), "base")

    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (1,)
    assert [*(database.parent / "backups").iterdir()] == []


def test_a_migration_may_keep_the_orphans_that_it_finds(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO user_permissions VALUES (98, 99)")

    command.current(alembic_config(f"sqlite:///{database}"))
    command.downgrade(alembic_config(f"sqlite:///{database}"), "base")


def test_a_migration_that_leaves_a_new_orphan_is_rolled_back(
    database: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(ALEMBIC, tmp_path / "alembic"))
    config = alembic_config(f"sqlite:///{database}")
    config.set_main_option("script_location", str(folder))
    command.revision(config, "orphan")
    (revision,) = (folder / "versions").glob("*_orphan.py")
    insert = "op.execute('INSERT INTO user_permissions VALUES (98, 99)')"
    revision.write_text(revision.read_text("utf-8").replace("pass", insert, 1), "utf-8")

    with pytest.raises(RuntimeError, match="leaves orphans"):
        command.upgrade(config, "head")

    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM user_permissions").fetchone() == (0,)
