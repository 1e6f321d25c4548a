"""Every command that the project's first description shows works in a generated project."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Migrated
from tests.support.projects import Generate, Project

MODEL = """from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base


class Book(Base):
    __tablename__ = "books"

    title: Mapped[str]
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
"""


# A folder with every difficult character.
FOLDER = "My Projects ü & co (x) 100% #1"


@pytest.fixture
def shelf(generate: Generate, tmp_path: Path) -> Project:
    """A new project."""
    return Project(Path(shutil.copytree(generate().path, tmp_path / FOLDER)), {})


@pytest.fixture
def migrated(generate: Generate, migrated_once: Migrated, tmp_path: Path) -> Project:
    """A project after `alembic upgrade head`."""
    return Project(Path(shutil.copytree(migrated_once(generate()), tmp_path / FOLDER)), {})


def query(database: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(statement).fetchall()


def tables(database: Path) -> set[object]:
    return {row[0] for row in query(database, "SELECT name FROM sqlite_master WHERE type='table'")}


def test_upgrade_creates_a_database_with_named_constraints(shelf: Project) -> None:
    shelf.succeed("alembic", "upgrade", "head")

    database = shelf.path / "app.db"
    assert {"users", "permissions", "user_permissions", "alembic_version"} <= tables(database)
    schema = "\n".join(str(row[0]) for row in query(database, "SELECT sql FROM sqlite_master"))
    for name in (
        "pk_user_permissions",
        "uq_users_username",
        "uq_users_email",
        "ck_users_password_length",
        "fk_user_permissions_user_id_users",
    ):
        assert f"CONSTRAINT {name}" in schema


def test_a_new_model_in_its_folder_is_found(migrated: Project) -> None:
    (migrated.path / "app/models/book.py").write_text(MODEL)

    migrated.succeed("alembic", "revision", "-m", "add_new_model", "--autogenerate")

    (revision,) = (migrated.path / "alembic/versions").glob("*_add_new_model.py")
    assert "op.create_table('books'" in revision.read_text("utf-8")
    migrated.succeed("alembic", "upgrade", "head")
    assert "books" in tables(migrated.path / "app.db")
    migrated.succeed("ruff", "check")
    migrated.succeed("ruff", "format", "--check")
    assert "No new upgrade operations" in migrated.succeed("alembic", "check")


def test_a_changed_model_is_migrated_with_its_rows(migrated: Project) -> None:
    with closing(sqlite3.connect(migrated.path / "app.db")) as connection, connection:
        connection.execute("INSERT INTO users VALUES (1, 'ada', 'ada@example.com', 'hash', 1)")
        connection.execute("INSERT INTO permissions VALUES (101, 'books:read', '')")
        connection.execute("INSERT INTO user_permissions VALUES (1, 101)")
    model = migrated.path / "app/models/user.py"
    model.write_text(
        model.read_text("utf-8").replace(
            "    is_active:",
            '    nickname: Mapped[str] = mapped_column(String(50), server_default="")\n'
            "    is_active:",
        ),
        "utf-8",
    )

    migrated.succeed("alembic", "revision", "-m", "modify_user", "--autogenerate")
    migrated.succeed("alembic", "upgrade", "head")

    assert query(migrated.path / "app.db", "SELECT nickname FROM users") == [("",)]
    # The table was replaced, but rows that refer to it with ON DELETE CASCADE still exist.
    assert query(migrated.path / "app.db", "SELECT count(*) FROM user_permissions") == [(1,)]
    migrated.succeed("alembic", "downgrade", "-1")
    assert query(migrated.path / "app.db", "SELECT count(*) FROM user_permissions") == [(1,)]


def test_history_current_and_both_forms_of_downgrade(migrated: Project) -> None:
    assert "(head)" in migrated.succeed("alembic", "current")
    assert "8ded3252ce31" in migrated.succeed("alembic", "history", "--verbose")

    migrated.succeed("alembic", "downgrade", "-1")
    migrated.succeed("alembic", "downgrade", "base")
    # Alembic's tables stay, and SQLite's own table of the last ids.
    left = {"alembic_version", "alembic_compatible", "sqlite_sequence"}
    assert tables(migrated.path / "app.db") == left

    migrated.succeed("alembic", "upgrade", "head")
    migrated.succeed("alembic", "revision", "-m", "nothing")
    migrated.succeed("alembic", "upgrade", "head")
    migrated.succeed("alembic", "downgrade", "8ded3252ce31")
    assert "8ded3252ce31" in migrated.succeed("alembic", "current")


def test_a_deleted_database_is_created_again(migrated: Project) -> None:
    (migrated.path / "app.db").unlink()

    migrated.succeed("alembic", "upgrade", "head")

    assert "users" in tables(migrated.path / "app.db")


def test_sql_is_printed_for_either_database(shelf: Project) -> None:
    assert "CREATE TABLE users" in shelf.succeed("alembic", "upgrade", "head", "--sql")
    assert not (shelf.path / "app.db").exists()
    assert "DROP TABLE users" in shelf.succeed("alembic", "downgrade", "8ded3252ce31:base", "--sql")


@pytest.fixture(params=["sqlite:///{}", "sqlite+aiosqlite:///{}"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A synchronous or an asynchronous URL of a database, and its file."""
    file = tmp_path / "elsewhere.db"
    return request.param.format(file), file


def test_the_url_may_be_in_the_environment(shelf: Project, elsewhere: tuple[str, Path]) -> None:
    url, file = elsewhere

    shelf.succeed("alembic", "upgrade", "head", DATABASE_URL=url)

    assert "users" in tables(file)
    assert not (shelf.path / "app.db").exists()
    shelf.succeed("app", "check", DATABASE_URL=url)


def test_the_url_may_be_in_the_env_file(shelf: Project, elsewhere: tuple[str, Path]) -> None:
    url, file = elsewhere
    (shelf.path / ".env").write_text(f'DATABASE_URL="{url}"\n')

    shelf.succeed("alembic", "upgrade", "head")

    assert "users" in tables(file)


def test_the_url_may_be_in_alembic_ini(shelf: Project, elsewhere: tuple[str, Path]) -> None:
    url, file = elsewhere
    ini = shelf.path / "alembic.ini"
    assert "sqlalchemy.url = sqlite:///./app.db" in ini.read_text()
    ini.write_text(ini.read_text().replace("sqlite:///./app.db", url))

    shelf.succeed("alembic", "upgrade", "head")

    assert "users" in tables(file)


def test_the_url_on_the_command_line_wins(shelf: Project, elsewhere: tuple[str, Path]) -> None:
    url, file = elsewhere

    shelf.succeed("alembic", "-x", f"url={url}", "upgrade", "head", DATABASE_URL="sqlite:///no.db")

    assert "users" in tables(file)
    assert not (shelf.path / "no.db").exists()


def test_the_command_line_upgrades_too(shelf: Project) -> None:
    shelf.succeed("app", "db", "upgrade")

    assert "users" in tables(shelf.path / "app.db")


def test_openapi_is_printed_without_a_database(shelf: Project) -> None:
    assert '"openapi": "3.1.' in shelf.succeed("app", "openapi")


def test_a_failed_migration_leaves_nothing_and_can_be_repeated(migrated: Project) -> None:
    migrated.succeed("alembic", "revision", "-m", "half")
    (revision,) = (migrated.path / "alembic/versions").glob("*_half.py")
    whole = revision.read_text("utf-8").replace(
        "    pass\n", '    op.execute("CREATE TABLE half (id INTEGER)")\n', 1
    )
    revision.write_text(whole.replace('(id INTEGER)")\n', '(id INTEGER)")\n    raise OSError\n'))
    assert migrated.run("alembic", "upgrade", "head").returncode != 0
    assert "half" not in tables(migrated.path / "app.db")

    revision.write_text(whole)
    migrated.succeed("alembic", "upgrade", "head")

    assert "half" in tables(migrated.path / "app.db")
