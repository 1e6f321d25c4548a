"""A copy of a database to SQLite. The tests of PostgreSQL copy to it."""

from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine, text

from app.core.copy_database import CopyError, copy_database
from app.core.database import synchronous_url
from app.models import metadata
from tests.conftest import alembic_config

INSERT_USER = """
INSERT INTO users (username, email, password, is_active)
VALUES (:name, :name, '', true) RETURNING id
"""


def add_user(url: str, name: str) -> object:
    engine = create_engine(synchronous_url(url))
    with engine.begin() as connection:
        user_id: object = connection.execute(text(INSERT_USER), {"name": name}).scalar_one()
    engine.dispose()
    return user_id


@pytest.mark.parametrize("kept", ["username = 'ada'", "false"], ids=["one left", "none left"])
def test_i14_a_copy_never_gives_the_id_of_a_deleted_row_again(
    database_url: str, tmp_path: Path, kept: str
) -> None:
    target = f"sqlite:///{tmp_path / 'copy.db'}"
    command.upgrade(alembic_config(target), "head")
    ids = [add_user(database_url, name) for name in ("ada", "bob")]
    engine = create_engine(synchronous_url(database_url))
    with engine.begin() as connection:
        connection.execute(text(f"DELETE FROM users WHERE NOT ({kept})"))
    engine.dispose()

    copy_database(database_url, target, metadata, lambda *_: None)

    assert [*ids, add_user(target, "eve")] == [1, 2, 3]


def test_a_file_that_is_missing_is_named_with_what_to_do(database_url: str, tmp_path: Path) -> None:
    missing = f"sqlite:///{tmp_path / 'none.db'}"

    with pytest.raises(CopyError, match=r"^The target does not exist: run `alembic -x url="):
        copy_database(database_url, missing, metadata, lambda *_: None)
    with pytest.raises(CopyError, match=r"^The database does not exist"):
        copy_database(missing, database_url, metadata, lambda *_: None)
