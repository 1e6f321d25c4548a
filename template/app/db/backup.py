"""Copies of a SQLite database: taken while the app runs, checked, and put back.

`VACUUM INTO` reads one snapshot; a copy of the file alone tears, or lacks its write-ahead log.
"""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL

from app.db.reference import has_own_rows


class BackupError(Exception):
    """Why there is no backup or no restore, in a sentence; nothing was changed."""


def database_file(url: URL) -> Path:
    """The file of a SQLite URL; other databases bring tools of their own (`pg_dump`)."""
    if url.get_backend_name() != "sqlite" or not url.database:
        raise BackupError("this is for SQLite; PostgreSQL has pg_dump and pg_restore")
    return Path(url.database).resolve()


@contextmanager
def opened(file: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection without Python's own transactions; `mode` as in SQLite's URIs: ro, rw, rwc."""
    uri = f"{file.absolute().as_uri()}?mode={mode}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        yield connection


def back_up(source: Path, target: Path) -> None:
    """Write a checked copy of a database in use to a new file that only its owner can read."""
    if target.exists():
        raise BackupError(f"{target} exists already, and a backup overwrites nothing")
    part = new_file_beside(target)
    try:
        copy_checked(source, part)
        put_in_place(part, target)
    except FileExistsError:
        raise BackupError(f"{target} exists already, and a backup overwrites nothing") from None
    except (sqlite3.Error, BackupError, OSError) as error:
        raise BackupError(f"{source} could not be backed up: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def copy_checked(source: Path, empty: Path) -> None:
    with opened(source, "ro") as connection:
        connection.execute("VACUUM INTO ?", (str(empty),))
    verify(empty)


def put_in_place(part: Path, target: Path) -> None:
    """Give a file its name, unless that is taken: of two backups to one name, one is refused."""
    try:
        os.link(part, target)
    except OSError:
        if target.exists():
            raise FileExistsError from None
        # Some file systems, such as exFAT, have no links.
        part.rename(target)


def new_file_beside(target: Path) -> Path:
    """An empty file of its own, readable by its owner alone, on the same file system."""
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.", suffix=".part")
    except OSError as error:
        raise BackupError(f"{target} can't be written: {error.strerror}") from None
    os.close(handle)
    return Path(name)


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
    log, index = (target.with_name(target.name + suffix) for suffix in ("-wal", "-shm"))
    if not target.exists() and log.exists() and log.stat().st_size:
        raise BackupError(f"{log} has rows of a database that is not here: move it to its file")
    incoming = new_file_beside(target)
    try:
        copy_checked(backup, incoming)
        if target.exists():
            with alone_with(target):
                incoming.replace(target)
        else:
            log.unlink(missing_ok=True)
            index.unlink(missing_ok=True)
            incoming.replace(target)
    except (sqlite3.Error, OSError) as error:
        raise BackupError(f"{target} could not be restored: {error}") from error
    finally:
        incoming.unlink(missing_ok=True)


@contextmanager
def alone_with(target: Path) -> Iterator[None]:
    """Hold an empty database that nobody else has open, so that nobody writes to it meanwhile."""
    if file_has_own_rows(target):
        raise BackupError(f"{target} has rows: move it away first, with its -wal and -shm")
    try:
        with opened(target, "rw") as connection:
            connection.execute("PRAGMA busy_timeout = 1000")
            # Leaving the write-ahead log needs the file alone: any open connection is in the way.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("BEGIN EXCLUSIVE")
            if has_own_rows(connection):
                raise BackupError(f"{target} has rows: move it away first")
            if os.name == "nt":
                # Windows replaces no file that is open.
                connection.close()
            yield
    except sqlite3.Error as error:
        raise BackupError(f"{target} is in use, so stop the app first: {error}") from None


def file_has_own_rows(file: Path) -> bool:
    """Whether any table of an owner has a row; what is no database counts as filled."""
    try:
        with opened(file, "ro") as connection:
            return has_own_rows(connection)
    except sqlite3.Error:
        return True
