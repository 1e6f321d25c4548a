"""What a request costs: instructions under callgrind if valgrind is installed, else CPU time.

Instruction counts do not depend on the load of the machine. Times are medians over rounds in which
every target runs once.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.databases import copy_of
from benchmarks.table import ROUNDS, Row, compared
from tests.support.projects import ROOT

PEERS = ("full_stack", "s3rius", "benavlabs")
TARGETS = ("limit", "ours", *PEERS)
# Scenario → what it is called, and the goals against the limit and against the best peer.
GOALS: dict[str, tuple[str, float, float | None]] = {
    "no database": ("a route without a database", 12, None),
    "user": ("one user with permissions, logged in", 20, 0.75),
    "list": ("50 users with permissions, logged in", 4, 0.6),
    "create": ("a new user, committed, logged in, without hashing", 28, 1.0),
}
REQUESTS = {"no database": 30, "user": 20, "list": 6, "create": 20}


class Worker:
    """A target in a separate process."""

    def __init__(self, name: str, project: Path, database: Path, users: int) -> None:
        self.dumps = database.with_name(f"{name}.callgrind")
        command = [sys.executable, "-m", "benchmarks.worker", name]
        self.process = subprocess.Popen(
            [*self.wrapper(), *command, str(project), str(database), str(users)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wrapper(self) -> list[str]:
        return []

    def __enter__(self) -> Self:
        assert self.read() == "ready"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.communicate()

    def read(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline() or '"it ended"')

    def ask(self, scenario: str, count: int) -> dict[str, float]:
        assert self.process.stdin
        self.process.stdin.write(f"{scenario}\t{count}\n")
        self.process.stdin.flush()
        answer: dict[str, float] = self.read()
        return answer

    def cost(self, scenario: str, count: int) -> float:
        return self.ask(scenario, count)["processor"]


class CountingWorker(Worker):
    """The same under callgrind, fifty times slower; its cost is in thousands of instructions."""

    def wrapper(self) -> list[str]:
        options = ["--dump-before=getloadavg", f"--callgrind-out-file={self.dumps}"]
        return ["valgrind", "--quiet", "--tool=callgrind", *options]

    def cost(self, scenario: str, count: int) -> float:
        number = int(self.ask(scenario, count)["dump"])
        dump = self.dumps.with_name(f"{self.dumps.name}.{number}").read_text(errors="replace")
        (total,) = [line for line in dump.splitlines() if line.startswith("totals:")]
        return int(total.split()[1]) / count / 1000


def measure(project: Path, database: Path, users: int) -> list[Row]:
    counting = shutil.which("valgrind") is not None
    unit = "k instructions" if counting else "ms of the processor"
    kind = CountingWorker if counting else Worker
    costs: dict[str, dict[str, list[float]]] = {}
    workers = {name: kind(name, project, copy_of(database, name), users) for name in TARGETS}
    for worker in workers.values():
        worker.__enter__()
    for scenario, count in REQUESTS.items():
        found = costs.setdefault(scenario, {name: [] for name in TARGETS})
        for name, worker in workers.items():
            worker.ask(scenario, 5)
            found[name].append(worker.cost(scenario, count))
        for _ in range(0 if counting else ROUNDS - 1):
            for name, worker in workers.items():
                found[name].append(worker.cost(scenario, 5 * count))
    for worker in workers.values():
        worker.__exit__(None, None, None)
    return [
        row
        for scenario, found in costs.items()
        for row in rows(scenario, {n: statistics.median(f) for n, f in found.items()}, unit)
    ]


def rows(scenario: str, costs: dict[str, float], unit: str) -> list[Row]:
    what, to_limit, to_peer = GOALS[scenario]
    limit = compared(what, costs["ours"], unit, costs["limit"], "bare ASGI", to_limit)
    if to_peer is None:
        return [limit]
    best = min(PEERS, key=lambda name: costs[name])
    others = ", ".join(f"{name} {costs[name] / costs['ours']:.2f}x ours" for name in PEERS)
    against = f"the best replica ({others})"
    return [limit, compared(what, costs["ours"], unit, costs[best], against, to_peer)]
