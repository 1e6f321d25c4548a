"""Backups of a SQLite database in use, and how they are restored."""

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from app.core.backup import BackupError, back_up, restore, verify
from app.models import metadata
from tests.core.test_migrations import INSERT_ADA


def test_a_backup_has_every_row_that_was_committed_before(database: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        statement = (
            "INSERT INTO users (username, email, password, is_active) VALUES (?, ?, '', true)"
        )
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            while not stop.is_set():
                name = f"name {written}"
                connection.execute(statement, (name, name))
                written += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            before = written
            copy = tmp_path / f"{number}.backup"
            back_up(database, copy)
            with closing(sqlite3.connect(copy)) as connection:
                assert connection.execute("SELECT count(*) FROM users").fetchone()[0] >= before
    finally:
        stop.set()
        writer.join()


def test_a_backup_never_overwrites_a_file(database: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")

    with pytest.raises(BackupError, match="already exists"):
        back_up(database, precious)

    assert precious.read_text() == "mine"


@pytest.mark.parametrize("name", ["", "."])
def test_a_folder_is_neither_a_backup_nor_a_place_for_one(database: Path, name: str) -> None:
    with pytest.raises(BackupError, match="is a folder: name a file in it"):
        back_up(database, Path(name))
    with pytest.raises(BackupError, match="is a folder: name a file in it"):
        restore(Path(name), database, metadata)


def test_a_restored_backup_has_every_row(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(INSERT_ADA)
    copy = tmp_path / "copy"
    back_up(database, copy)
    database.unlink()

    restore(copy, database, metadata)

    verify(database)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT username FROM users").fetchall() == [("ada",)]


def test_a_database_with_only_seed_rows_is_replaced(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(INSERT_ADA)
    back_up(database, copy)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM users")

    restore(copy, database, metadata)

    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT username FROM users").fetchall() == [("ada",)]


@pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="gives files to another user")
def test_a_restored_database_belongs_to_whom_it_belonged(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    back_up(database, copy)
    database.chmod(0o640)
    os.chown(database, 12345, 23456)

    restore(copy, database, metadata)

    state = database.stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o777) == (12345, 23456, 0o640)


def test_a_database_in_use_or_with_rows_is_not_replaced(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    back_up(database, copy)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("SELECT * FROM users").fetchall()
        with pytest.raises(BackupError, match="in use"):
            restore(copy, database, metadata)
        connection.execute(INSERT_ADA)
        connection.commit()

    with pytest.raises(BackupError, match="has rows"):
        restore(copy, database, metadata)


def test_the_log_of_a_missing_database_is_kept(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    back_up(database, copy)
    database.unlink()
    log = database.with_name(f"{database.name}-wal")
    log.write_text("rows of the other database")

    with pytest.raises(BackupError, match="move it to that file"):
        restore(copy, database, metadata)

    assert log.read_text() == "rows of the other database"


def test_a_damaged_backup_is_not_restored(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    back_up(database, copy)
    content = bytearray(copy.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    copy.write_bytes(content)
    before = database.read_bytes()

    with pytest.raises(BackupError):
        restore(copy, database, metadata)

    assert database.read_bytes() == before
