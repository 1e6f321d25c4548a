"""What can be counted exactly: `python -m benchmarks.counting PROJECT DATABASE` prints it as JSON.

For each kind of request: the statements it sends, SQLite's plans for them, and the number of calls
to the driver's thread.
"""

import asyncio
import importlib
import json
import random
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from benchmarks import client
from benchmarks.targets import ours

SCENARIOS = ("no database", "me", "user", "list", "last page", "create")


async def count(project: Path, database: Path, users: int) -> dict[str, Any]:
    statements: list[tuple[str, Any]] = []
    turns: list[str] = []

    @event.listens_for(Engine, "before_cursor_execute")
    def remember(*sent: Any) -> None:
        statements.append((sent[2], sent[3]))

    requests = client.ours()
    found: dict[str, Any] = {}
    async with ours.opened(project, database) as (app, token):
        driver: Any = importlib.import_module("app.core.sqlite_driver")
        # On a busy machine, a short read would look like a long one.
        driver._LOOP_SECONDS = 60
        connection = driver.SQLiteConnection
        take_turn = connection.run_in_thread

        def counted(self: Any, call: Any) -> Any:
            turns.append(str(call))
            return take_turn(self, call)

        connection.run_in_thread = counted
        for scenario in SCENARIOS:
            for _ in range(3):
                statements.clear()
                turns.clear()
                method, path, body = requests.next(scenario, users, random.Random(1))  # noqa: S311
                status, answer = await client.call(app, method, path, token, body)
                assert status in {200, 201}, answer
            found[scenario] = {"turns": turns[:], "plans": explain(database, statements)}
    return found


def explain(database: Path, statements: list[tuple[str, Any]]) -> dict[str, list[str]]:
    """Statement → the steps that SQLite takes."""
    with closing(sqlite3.connect(database)) as connection:
        return {
            statement: [
                row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            ]
            for statement, parameters in statements
        }


if __name__ == "__main__":
    counts = asyncio.run(count(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
    print(json.dumps(counts))
