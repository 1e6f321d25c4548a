"""Copies of a SQLite database: taken while the app runs, checked, and put back.

A copy of the file alone misses what is still in its write-ahead log, or tears. `VACUUM INTO` reads
one snapshot, and so has every row that was committed before it began.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL


class BackupError(Exception):
    """Why there is no backup or no restore, in a sentence; nothing was changed."""


def database_file(url: URL) -> Path:
    """The file of a SQLite URL; other databases bring tools of their own (`pg_dump`)."""
    if url.get_backend_name() != "sqlite" or not url.database:
        raise BackupError("this is for SQLite; PostgreSQL has pg_dump and pg_restore")
    return Path(url.database).absolute()


@contextmanager
def opened(file: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection without Python's own transactions; `mode` as in SQLite's URIs: ro, rw, rwc."""
    uri = f"{file.absolute().as_uri()}?mode={mode}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        yield connection


def back_up(source: Path, target: Path) -> None:
    """Write a checked copy of a database in use to a new file that only its owner can read."""
    try:
        # Also keeps the name: of two backups to one path, one is refused.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise BackupError(f"{target} exists already, and a backup overwrites nothing") from None
    except OSError as error:
        raise BackupError(f"{target} can't be written: {error.strerror}") from None
    try:
        with opened(source, "ro") as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
        verify(target)
    except (sqlite3.Error, BackupError) as error:
        target.unlink()
        raise BackupError(f"{source} could not be backed up: {error}") from error


def verify(file: Path) -> None:
    """Check that a database file is whole, page by page, and has a revision."""
    try:
        with opened(file, "ro") as connection:
            broken = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            revisions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.Error as error:
        raise BackupError(f"{file} is not a database of this app: {error}") from None
    if broken != "ok":
        raise BackupError(f"{file} is damaged: {broken}")
    if not revisions:
        raise BackupError(f"{file} has no revision")


def restore(backup: Path, target: Path) -> None:
    """Put a backup in the place of a database that is empty or gone and that nobody has open."""
    verify(backup)
    incoming = target.with_name(f"{target.name}.restoring")
    incoming.unlink(missing_ok=True)
    back_up(backup, incoming)
    try:
        if target.exists():
            refuse_unless_idle_and_empty(target)
        # The log of the database that was here must not be replayed into the one that comes.
        for suffix in ("-wal", "-shm"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        incoming.replace(target)
    finally:
        incoming.unlink(missing_ok=True)


def refuse_unless_idle_and_empty(target: Path) -> None:
    if has_rows(target):
        raise BackupError(f"{target} has rows: move it away first")
    try:
        with opened(target, "rw") as connection:
            connection.execute("PRAGMA busy_timeout = 1000")
            # Leaving the write-ahead log needs the file alone: any open connection is in the way.
            connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise BackupError(f"{target} is in use, so stop the app first: {error}") from None


def has_rows(file: Path) -> bool:
    """Whether any table but Alembic's own has a row; what is no database counts as filled."""
    try:
        with opened(file, "ro") as connection:
            names = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            ).fetchall()
            return any(
                connection.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone()  # noqa: S608
                for (name,) in names
                if name != "alembic_version"
            )
    except sqlite3.Error:
        return True
