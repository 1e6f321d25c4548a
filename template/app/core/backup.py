"""Backups of a SQLite database: made while the app runs, verified, and restored.

`VACUUM INTO` reads one snapshot. A plain copy of the file may be torn and lacks the write-ahead
log.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import MetaData

from app.core.database import parse_url
from app.core.seed_data import has_own_rows


class BackupError(Exception):
    """The reason why a backup or restore failed, as a sentence. Nothing was changed."""


def database_file(database_url: str) -> Path:
    url = parse_url(database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise BackupError("this command is for SQLite; for PostgreSQL use pg_dump and pg_restore")
    return Path(url.database).resolve()


@contextmanager
def open_file(file: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection without Python's own transactions. Modes as in SQLite's URIs: ro, rw, rwc."""
    uri = f"{file.absolute().as_uri()}?mode={mode}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        yield connection


def _refuse_folder(path: Path) -> None:
    """An empty argument is the current folder."""
    if path.is_dir():
        raise BackupError(f"{path.absolute()} is a folder: name a file in it")


def back_up(source: Path, target: Path) -> None:
    """Write a verified copy of a database in use to a new file that only its owner can read."""
    part = _new_file_next_to(target)
    try:
        _refuse_folder(target)
        if target.exists():
            raise FileExistsError
        _copy_and_verify(source, part)
        _link_into_place(part, target)
    except FileExistsError:
        reason = f"{target} already exists, and a backup never overwrites a file"
        raise BackupError(reason) from None
    except (sqlite3.Error, BackupError, OSError) as error:
        raise BackupError(f"cannot back up {source}: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def restore(backup: Path, target: Path, metadata: MetaData) -> None:
    """Put a backup in the place of a database that is missing, or empty and not open anywhere."""
    verify(backup)
    log, index = (target.with_name(target.name + suffix) for suffix in ("-wal", "-shm"))
    incoming = _new_file_next_to(target)
    try:
        if not target.exists() and log.exists() and log.stat().st_size:
            raise BackupError(f"{log} belongs to a database that is missing: move it to that file")
        _copy_and_verify(backup, incoming)
        if target.exists():
            _keep_owner_and_mode(target, incoming)
            with _exclusive_lock(target, metadata):
                incoming.replace(target)
        else:
            log.unlink(missing_ok=True)
            index.unlink(missing_ok=True)
            incoming.replace(target)
    except (sqlite3.Error, OSError) as error:
        raise BackupError(f"cannot restore {target}: {error}") from error
    finally:
        incoming.unlink(missing_ok=True)


def verify(file: Path, check: str = "integrity_check") -> None:
    """Check every page of a database file, and that it has a revision.

    `quick_check` takes a tenth of the time. It does not compare indexes with their tables.
    """
    try:
        _refuse_folder(file)
        with open_file(file, "ro") as connection:
            result = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
            revisions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except (sqlite3.Error, OSError) as error:
        raise BackupError(f"{file} is not a database of this app: {error}") from None
    if result != "ok":
        raise BackupError(f"{file} is damaged: {result}")
    if not revisions:
        raise BackupError(f"{file} has no revision")


def file_has_own_rows(file: Path, metadata: MetaData) -> bool:
    """Whether any table has a row that is not a seed row; also true for other kinds of files."""
    try:
        with open_file(file, "ro") as connection:
            return has_own_rows(connection, metadata)
    except sqlite3.Error:
        return True


def size_of_copy(file: Path) -> int:
    """How many bytes a backup of this database needs."""
    try:
        with open_file(file, "ro") as connection:
            pages, unused, page_size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
    except sqlite3.Error as error:
        raise BackupError(f"cannot read {file}: {error}") from None
    return int((pages - unused) * page_size)


def _require_space(source: Path, folder: Path) -> None:
    needed, free = size_of_copy(source), shutil.disk_usage(folder).free
    if needed > free:
        raise BackupError(
            f"the copy needs {needed / 1e6:,.1f} MB, and {folder} has {free / 1e6:,.1f} MB left"
        )


def _copy_and_verify(source: Path, empty: Path) -> None:
    _require_space(source, empty.parent)
    # With mode=ro, SQLite takes about ten times as long. A file that is read-only still works.
    with open_file(source, "rw") as connection:
        connection.execute("VACUUM INTO ?", (str(empty),))
    verify(empty, "quick_check")


def _link_into_place(part: Path, target: Path) -> None:
    """Rename a file unless the name is taken: of two backups to one name, one fails."""
    try:
        os.link(part, target)
    except OSError:
        if target.exists():
            raise FileExistsError from None
        # Some file systems, such as exFAT, have no links.
        part.rename(target)


def _new_file_next_to(target: Path) -> Path:
    """An empty file on the same file system that only its owner can read."""
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.", suffix=".part")
    except OSError as error:
        raise BackupError(f"cannot write {target}: {error.strerror}") from None
    os.close(handle)
    return Path(name)


def _keep_owner_and_mode(target: Path, incoming: Path) -> None:
    """The app may run as another user than the one who restores, who may be root."""
    if os.name == "posix":
        state = target.stat()
        os.chown(incoming, state.st_uid, state.st_gid)
        incoming.chmod(state.st_mode & 0o777)


@contextmanager
def _exclusive_lock(target: Path, metadata: MetaData) -> Iterator[None]:
    """Lock an empty database that no other process has open."""
    if file_has_own_rows(target, metadata):
        raise BackupError(
            f"{target} has rows: stop the app and move the file away, with its -wal and -shm files"
        )
    try:
        with open_file(target, "rw") as connection:
            connection.execute("PRAGMA busy_timeout = 1000")
            # Leaving WAL mode fails while any other connection is open.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("BEGIN EXCLUSIVE")
            if has_own_rows(connection, metadata):
                raise BackupError(f"{target} has rows: stop the app and move the file away")
            if os.name == "nt":
                # Windows cannot replace an open file.
                connection.close()
            yield
    except sqlite3.Error as error:
        raise BackupError(f"{target} is in use, so stop the app first: {error}") from None
