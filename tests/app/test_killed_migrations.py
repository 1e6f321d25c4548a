"""Alembic killed at each statement of all migrations, and run again."""

import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.projects import Project

Report = Callable[[str], None]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")]

# Each upgrade is a separate process, forked from one that has imported everything.
KILLER = r"""
import os
import re
import signal
import sqlite3
import sys
import traceback
from pathlib import Path

import app.core.migrations
import app.main
from alembic.config import main
from sqlalchemy import Engine, event

DATABASE = Path(sys.argv[1])


def upgrade(statements: int | None = None) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = statements

    @event.listens_for(Engine, "before_cursor_execute")
    def count(*_):
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left = None if left is None else left - 1

    try:
        main(["upgrade", "head"])
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def read() -> tuple[list[list[str]], list[tuple[str]], list[object]]:
    connection = sqlite3.connect(DATABASE)
    try:
        schema = connection.execute("SELECT sql FROM sqlite_master WHERE sql > '' ORDER BY name")
        # A batch writes the constraints of a table in any order.
        lines = [sorted(re.split(r",? *\n", sql)) for (sql,) in schema]
        checks = ("PRAGMA integrity_check", "PRAGMA foreign_key_check")
        return lines, *(connection.execute(check).fetchall() for check in checks)
    finally:
        connection.close()


assert upgrade() == 0
expected = read()
assert expected[1:] == ([("ok",)], []), expected
kills = 0
while True:
    for file in DATABASE.parent.glob(f"{DATABASE.name}*"):
        file.unlink()
    status = upgrade(kills)
    if status == 0:
        break
    assert status == -signal.SIGKILL, status
    kills += 1
    assert upgrade() == 0, f"after a kill before statement {kills}"
    assert read() == expected, f"after a kill before statement {kills}"
print(f"{kills} kills")
"""


def test_a_migration_killed_at_any_statement_can_be_repeated(probed: Path, report: Report) -> None:
    """Kills Alembic just before its n-th statement, for every n."""
    (probed / "killer.py").write_text(KILLER)
    project = Project(probed, {})
    database = probed / "killed.db"
    place = {"DATABASE_URL": f"sqlite:///{database}"}

    said = project.succeed("killer", str(database), **place)

    kills = int(re.findall(r"(\d+) kills", said)[0])
    report(f"a migration killed at each of {kills} statements")
    with closing(sqlite3.connect(database)) as connection:
        revisions = connection.execute("SELECT count(*) FROM alembic_version").fetchone()
    assert (kills > 100, revisions) == (True, (1,))
    project.succeed("alembic", "check", **place)
