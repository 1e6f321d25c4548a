"""A rendered project with a database of many users, an administrator who can log in among them."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from tests.support.projects import clean_environment

ADMINISTRATOR = "ada"
PASSWORD = "seven wet otters on a raft"  # noqa: S105  (of a database that is thrown away)
PERMISSIONS_OF_A_USER = 3
COPIER = str(Path(sys.executable).with_name("copier"))
UV = str(Path(sys.executable).with_name("uv"))


def render(template: Path, project: Path) -> Path:
    command = [COPIER, "copy", "--skip-tasks", "--defaults", "--quiet"]
    subprocess.run([*command, str(template), str(project)], check=True, capture_output=True)
    return project


def fill(project: Path, users: int) -> Path:
    """A database with the project's migrations and so many users; it is 2 GB for ten million."""
    file = project.parent / f"{users}.db"
    url = f"sqlite:///{file}"
    run(project, url, "alembic", "upgrade", "head")
    account = [ADMINISTRATOR, "ada@example.com"]
    run(project, url, "app", "user", "create-admin", *account, given=f"{PASSWORD}\n")
    with closing(sqlite3.connect(file)) as connection, connection:
        held = [number for (number,) in connection.execute("SELECT id FROM permissions")]
        connection.executemany("INSERT INTO users VALUES (?, ?, ?, '!', 1)", accounts(users))
        connection.executemany("INSERT INTO user_permissions VALUES (?, ?)", links(users, held))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("ANALYZE")
        connection.commit()
    return file


def accounts(users: int) -> Iterator[tuple[int, str, str]]:
    for number in range(2, users + 1):
        yield number, f"user-{number}", f"user-{number}@example.com"


def links(users: int, held: list[int]) -> Iterator[tuple[int, int]]:
    for number in range(2, users + 1):
        for k in range(PERMISSIONS_OF_A_USER):
            yield number, held[(number + k) % len(held)]


def add_session(file: Path, token: str) -> str:
    """The token of a new login session of the administrator, as a login writes it."""
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(" ")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(
            "INSERT INTO sessions"
            " (user_id, token_hash, created_at, last_used_at, address, user_agent)"
            " SELECT id, ?, ?, ?, '', '' FROM users WHERE username = ?",
            (hashlib.sha256(token.encode()).hexdigest(), now, now, ADMINISTRATOR),
        )
    return token


def run(project: Path, url: str, *command: str, given: str = "") -> None:
    subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env={**clean_environment(), "DATABASE_URL": url},
        input=given,
        text=True,
        check=True,
        capture_output=True,
    )


def copy_of(file: Path, name: str) -> Path:
    """Each target writes to a separate database."""
    target = file.with_name(f"{name}-{file.name}")
    shutil.copy(file, target)
    os.sync()
    return target
