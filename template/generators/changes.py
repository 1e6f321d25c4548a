"""Puts the files of a command in their places: all of them, even if it is killed on the way."""

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

# The files of a command, from when all of them are written until the last one is in its place.
UNFINISHED = "generators/unfinished"
BEFORE = "before.json"


class GenerateError(Exception):
    """Why nothing was generated."""


@contextmanager
def exclusive_lock(project: Path) -> Iterator[None]:
    """Keep other commands out. SQLite's lock works on every system, and ends with the process."""
    file = project / "generators/lock.db"
    with ExitStack() as stack:
        try:
            lock = sqlite3.connect(file, timeout=0, isolation_level=None)
            stack.enter_context(closing(lock))
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            reason = "another command is changing the project" if is_busy else f"{file}: {error}"
            raise GenerateError(f"{reason}; run this again") from None
        for left_over in project.glob("generators/unfinished-*.part"):
            shutil.rmtree(left_over)
        yield


def write_changes(project: Path, files: dict[str, bytes]) -> None:
    """Write these files, or none. The folder gets its name when all of them are on the disk."""
    before = {file: read(project / file) for file in files}
    with scratch(project) as folder:
        changes = Path(folder, "changes")
        write_durably(changes / BEFORE, json.dumps(before).encode())
        for file, content in files.items():
            write_durably(changes / file, content)
        try:
            changes.rename(project / UNFINISHED)
        except OSError:
            raise GenerateError(f"remove {UNFINISHED}, and run this again") from None
    finish(project)


def finish(project: Path) -> list[str]:
    """Finish what a killed command has begun. Returns its files."""
    changes = project / UNFINISHED
    if not (changes / BEFORE).exists():
        return []
    before: dict[str, str] = json.loads((changes / BEFORE).read_bytes())
    # New files first, because the others refer to them.
    files = sorted((f for f in before if (changes / f).exists()), key=lambda f: bool(before[f]))
    if other := [file for file in files if read(project / file) != before[file]]:
        raise GenerateError(
            f"a command was interrupted, and {other[0]} has changed since then; go back with git, "
            f"or finish it by hand with the files in {UNFINISHED}, and remove that folder"
        )
    for file in files:
        target = (project / file).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.copymode(target, changes / file)
        (changes / file).replace(target)
    with scratch(project) as folder:
        changes.rename(Path(folder, "changes"))
    return [*before]


def scratch(project: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder on the same disk. Git ignores it."""
    return tempfile.TemporaryDirectory(".part", "unfinished-", project / "generators")


def write_durably(file: Path, content: bytes) -> None:
    """Write a file that is not empty after a power cut."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def read(file: Path) -> str:
    """Its text with the line ends that it has, or nothing if there is no such file."""
    return file.read_bytes().decode() if file.exists() else ""
