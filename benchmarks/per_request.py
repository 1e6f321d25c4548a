"""What a request costs behind its server, in instructions under callgrind.

They do not depend on the load of the machine. Start-up and the first requests are not counted.
"""

import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks import client
from benchmarks.client import Client, Requests
from benchmarks.databases import ADMINISTRATOR, PASSWORD, UV, add_session, copy_of
from benchmarks.table import Row, compared
from benchmarks.targets import common, s3rius
from benchmarks.targets.ours import SERVE
from tests.support.machines import Machine, base_python
from tests.support.projects import ROOT
from tests.support.servers import Server

# The bare ASGI function runs on the loop and the parser that `serve` uses.
PLAIN = ("--loop", "asyncio", "--http", "h11", "--lifespan", "off", "--no-access-log")
OTHERS = {
    "full_stack": "replica of full-stack-fastapi-template",
    "s3rius": "s3rius",
    "benavlabs": "replica of benavlabs",
}
SECONDS_IDLE = 2
UNIT = "k instructions"
# Scenario → what it is called, how many requests are counted, and the most that ours may take.
GOALS: dict[str, tuple[str, int, float]] = {
    "no database": ("a route without a database", 30, 900),
    "me": ("who am I", 20, 2000),
    # Later pages cost more if they have an OFFSET.
    "first page": ("50 users with permissions", 6, 7500),
    "create": ("a new user, committed, without hashing", 15, 5500),
}
# Routes, and the subject of the token.
REPLICAS = {
    "full_stack": (
        Requests(
            live="/api/v1/utils/health-check/",
            me="/api/v1/users/me",
            page=lambda n: f"/api/v1/users/?skip={n}&limit=50",
            create="/api/v1/users/",
        ),
        str(uuid.UUID(int=1)),
    ),
    "benavlabs": (
        Requests(
            live="/api/v1/health",
            me="/api/v1/user/me/",
            page=lambda n: f"/api/v1/users?page={n // 50 + 1}&items_per_page=50",
            create="/api/v1/user",
        ),
        "user1",
    ),
    "litestar": (
        Requests(
            live="/health",
            me="/users/me",
            page=lambda n: f"/users?limit=50&offset={n}",
            create="/users",
        ),
        str(uuid.UUID(int=1)),
    ),
}


@dataclass(frozen=True)
class Target:
    """How an app is served, as its users start it; the port is appended to the command."""

    command: list[str]
    folder: Path
    requests: Requests
    environment: dict[str, str]
    # None: log in.
    token: str | None = None


def ours(project: Path, database: Path, users: int, **environment: str) -> Target:
    command = [sys.executable, "-c", SERVE, "serve"]
    variables = {"DATABASE_URL": f"sqlite:///{database}", **environment}
    return Target(command, project, client.ours(), variables)


def with_uvloop(project: Path, database: Path, users: int) -> Target:
    folder = str(database.with_suffix(".uvloop"))
    subprocess.run([UV, "pip", "install", "-q", "--target", folder, "uvloop"], check=True)
    return ours(project, database, users, PYTHONPATH=folder)


def bare(project: Path, database: Path, users: int) -> Target:
    command = [sys.executable, "-m", "uvicorn", "benchmarks.targets.limit:app", *PLAIN]
    requests = Requests("/health/live", "/users/me", lambda n: f"/users?after={n}", "/users")
    token = add_session(database, "token")
    return Target(command, ROOT, requests, {"DATABASE": str(database)}, token)


def replica(name: str, project: Path, database: Path, users: int) -> Target:
    file = database.with_suffix(".peer")
    common.fill(file, users)
    command = [s3rius.python(project), "-m", "uvicorn", f"benchmarks.targets.{name}:app"]
    requests, subject = REPLICAS[name]
    environment = {"DATABASE": str(file)}
    return Target(command, ROOT, requests, environment, common.token(subject))


def generated(project: Path, database: Path, users: int) -> Target:
    file = database.with_suffix(".peer")
    token = s3rius.fill(project, file, users)
    requests = Requests(
        live="/api/health",
        me="/api/users/me",
        page=lambda n: f"/api/dummy/?limit=50&offset={n}",
        create="/api/auth/register",
    )
    command = [s3rius.python(project), "-c", s3rius.SERVE]
    return Target(command, s3rius.peer(project), requests, s3rius.settings(file), token)


TARGETS: dict[str, Callable[[Path, Path, int], Target]] = {
    "bare": bare,
    "ours": ours,
    "uvloop": with_uvloop,
    "full_stack": partial(replica, "full_stack"),
    "s3rius": generated,
    "benavlabs": partial(replica, "benavlabs"),
    "litestar": partial(replica, "litestar"),
}


class Worker:
    """A target behind its server, and a client with one connection."""

    def __init__(self, name: str, project: Path, database: Path, users: int) -> None:
        self.target = target = TARGETS[name](project, database, users)
        self.users = users
        self.dumps = database.with_suffix(".callgrind")
        machine = Machine(database.with_suffix(".home"), {"python3": base_python()})
        paths = [str(ROOT), *filter(None, [target.environment.get("PYTHONPATH")])]
        environment = {
            "PYTHONHASHSEED": "0",
            **target.environment,
            "PYTHONPATH": os.pathsep.join(paths),
        }
        command = [*self.wrapper(), *target.command]
        self.server = Server(machine, command, target.folder, **environment)
        # Under callgrind on a busy machine.
        self.server.starts_within = 120

    def wrapper(self) -> list[str]:
        return []

    def __enter__(self) -> Self:
        self.server.__enter__()
        self.client = Client(self.server.port, self.target.token or self.log_in())
        return self

    def log_in(self) -> str:
        answer = self.server.log_in(ADMINISTRATOR, PASSWORD).json()
        return str(answer["access_token"])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.connection.close()
        self.server.__exit__(kind, error, trace)

    def ask(self, scenario: str, count: int) -> dict[str, float]:
        """Milliseconds for each of so many requests."""
        dice = random.Random(1)  # noqa: S311
        planned = [self.target.requests.next(scenario, self.users, dice) for _ in range(count)]
        started = time.perf_counter()
        for method, path, body in planned:
            self.client.send(method, path, body)
        return {"clock": (time.perf_counter() - started) / count * 1000}


class CountingWorker(Worker):
    """The same under callgrind, fifty times slower while it counts."""

    dumped = 0

    def wrapper(self) -> list[str]:
        options = ["--instr-atstart=no", f"--callgrind-out-file={self.dumps}"]
        return [shutil.which("valgrind") or "valgrind", "--quiet", "--tool=callgrind", *options]

    def __enter__(self) -> Self:
        super().__enter__()
        self.tell("instrumentation", "on")
        self.tell("zero")
        time.sleep(SECONDS_IDLE)
        self.idle = self.counted() / SECONDS_IDLE
        return self

    def tell(self, *words: str) -> None:
        command = ["vgdb", f"--pid={self.server.process.pid}", *words]
        subprocess.run(command, check=True, capture_output=True)

    def counted(self) -> float:
        """Thousands of instructions since the last `zero` or dump."""
        self.tell("dump")
        self.dumped += 1
        dump = self.dumps.with_name(f"{self.dumps.name}.{self.dumped}")
        lines = dump.read_text(errors="replace").splitlines()
        (total,) = [line for line in lines if line.startswith("totals:")]
        return int(total.split()[1]) / 1000

    def cost(self, scenario: str, count: int) -> float:
        """Thousands of instructions for each request."""
        # The server closes a connection that it had no request on for some seconds.
        self.client.connection.close()
        self.ask(scenario, 5)
        self.tell("zero")
        seconds = self.ask(scenario, count)["clock"] / 1000
        # So slow, uvicorn's clock would count: it ticks between requests, ten times a second.
        return self.counted() / count - self.idle * min(seconds, 0.1)


def measure(project: Path, database: Path, users: int) -> list[Row]:
    if not shutil.which("valgrind"):
        raise SystemExit("Requests are counted with callgrind: install valgrind.")
    s3rius.generate(project)

    def costs(name: str) -> dict[str, float]:
        with CountingWorker(name, project, copy_of(database, name), users) as worker:
            return {scenario: worker.cost(scenario, GOALS[scenario][1]) for scenario in GOALS}

    with ThreadPoolExecutor(2) as pool:
        by_name = dict(zip(TARGETS, pool.map(costs, TARGETS), strict=True))
    return [
        row
        for scenario in GOALS
        for row in rows(scenario, {name: found[scenario] for name, found in by_name.items()})
    ]


def rows(scenario: str, costs: dict[str, float]) -> list[Row]:
    what, _, goal = GOALS[scenario]
    best = min(OTHERS, key=lambda name: costs[name])
    others = ", ".join(f"{text} {costs[name]:,.0f}" for name, text in OTHERS.items())
    known = (
        f"bare ASGI: {costs['bare']:,.0f}; ours with uvloop: {costs['uvloop']:,.0f}; "
        f"Litestar with advanced-alchemy: {costs['litestar']:,.0f}"
    )
    figure = f"{costs['ours']:,.0f} {UNIT}"
    return [
        Row(what, figure, f"{goal:,} {UNIT}", known, costs["ours"] / goal, 1.0),
        compared(what, costs["ours"], UNIT, costs[best], f"the best of the others ({others})", 1),
    ]
