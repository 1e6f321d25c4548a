"""A process with one target in it: `python -m benchmarks.worker TARGET PROJECT DATABASE USERS`.

Each line of its input, `SCENARIO<tab>COUNT`, is that many requests, answered by a line of JSON. Two
calls of os.getloadavg() mark their beginning and end for callgrind, which writes a dump at each.
"""

import asyncio
import importlib
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.client import App, Requests, call


async def serve(name: str, project: Path, database: Path, users: int) -> None:
    target: Any = importlib.import_module(f"benchmarks.targets.{name}")
    async with target.opened(project, database) as (app, requests):
        print(json.dumps("ready"), flush=True)
        for number, line in enumerate(sys.stdin):
            scenario, count = line.rstrip("\n").split("\t")
            took = await batch(app, requests, scenario, int(count), users)
            print(json.dumps({"dump": 2 * number + 2, **took}), flush=True)


async def batch(
    app: App, requests: Requests, scenario: str, count: int, users: int
) -> dict[str, float]:
    """Milliseconds for each request, of the processor and of the clock."""
    dice = random.Random(1)  # noqa: S311
    planned = [requests.next(scenario, users, dice) for _ in range(count)]
    os.getloadavg()
    processor, clock = time.process_time(), time.perf_counter()
    for method, path, body in planned:
        status, answer = await call(app, method, path, requests.token, body)
        if status not in {200, 201}:
            raise SystemExit(f"{method} {path}: {status} {answer.decode()}")
    processor, clock = time.process_time() - processor, time.perf_counter() - clock
    os.getloadavg()
    return {"processor": processor / count * 1000, "clock": clock / count * 1000}


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))
