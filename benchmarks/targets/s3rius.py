"""What s3rius/FastAPI-template really generates: with SQLite, SQLAlchemy, users and its example.

Its users have no list, so the list is that of its example, rows of two columns. Its create is a
registration, without a login. Its environment also runs the replicas, since it is what they come
with, and Litestar.
"""

import os
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from pathlib import Path

import jwt

from benchmarks.databases import UV
from benchmarks.targets.common import ALGORITHM, KEY

GENERATOR = "fastapi_template==6.1.2"
LITESTAR = ("litestar[jwt]==2.25.0", "advanced-alchemy==1.12.0")
NAME = "peer"
# With one way to log in only, the generator opens a menu.
OPTIONS = (
    *("--quiet", "--name", NAME, "--api-type", "rest", "--db", "sqlite", "--orm", "sqlalchemy"),
    *("--ci", "none", "--add_users", "--jwt-auth", "--cookie-auth", "--migrations"),
    *("--dummy", "--routers"),
)
# Hashing would be all that is measured.
SERVE = f"""
import os, sys
from fastapi_users.password import PasswordHelper

os.environ["{NAME.upper()}_PORT"] = sys.argv[-1]
PasswordHelper.hash = lambda *_: "!"
from {NAME}.__main__ import main
main()
"""


def peer(project: Path) -> Path:
    """Where it generates, next to our project."""
    return project.with_name("peers") / NAME


def python(project: Path) -> str:
    """That of the environment in which it and the replicas run."""
    return str(peer(project).with_name("environment") / "bin/python")


def generate(project: Path) -> None:
    folder = peer(project).parent
    folder.mkdir()

    def run(*command: str | Path, **environment: str) -> None:
        # The generator looks for uv.
        path = os.pathsep.join((str(Path(UV).parent), os.environ["PATH"]))
        every = {**os.environ, "PATH": path, **environment}
        done = subprocess.run(command, cwd=folder, env=every, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stdout + done.stderr)

    run(UV, "venv", "--python", sys.executable, "environment")
    run(UV, "pip", "install", "--python", python(project), GENERATOR)
    # Online, it would make another environment, with another Python.
    alone = {"UV_OFFLINE": "1", "UV_PYTHON_DOWNLOADS": "never"}
    run(python(project), "-m", "fastapi_template", *OPTIONS, **alone)
    run(
        UV, "pip", "install", "--python", python(project), "-r", f"{NAME}/pyproject.toml", *LITESTAR
    )


def fill(project: Path, file: Path, users: int) -> str:
    """A database with so many users and rows of the example; the token of one of the users."""
    subprocess.run(
        [python(project), "-m", "alembic", "upgrade", "head"],
        cwd=peer(project),
        env={**os.environ, **settings(file)},
        check=True,
        capture_output=True,
    )
    rows = range(1, users + 1)
    people = ((str(uuid.UUID(int=n)), f"user-{n}@example.com") for n in rows)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executemany("INSERT INTO user VALUES (?, ?, '!', 1, 0, 0)", people)
        connection.executemany("INSERT INTO dummy_model VALUES (?, ?)", ((n, f"{n}") for n in rows))
    payload = {"sub": str(uuid.UUID(int=1)), "aud": ["fastapi-users:auth"]}
    return jwt.encode(payload, KEY, ALGORITHM)


def settings(file: Path) -> dict[str, str]:
    own = {"DB_FILE": str(file), "RELOAD": "False"}
    return {"USERS_SECRET": KEY, **{f"{NAME.upper()}_{name}": own[name] for name in own}}
