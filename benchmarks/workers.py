"""`serve` with 1, 2 and 4 workers on both databases, and what breaks first when clients are added.

The clients are wrk, which takes little of the cores that it shares with the server.
"""

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from benchmarks.databases import ADMINISTRATOR, PASSWORD, copy_of, run
from benchmarks.load import BEHIND_A_PROXY
from benchmarks.table import Row
from tests.support.machines import Machine, base_python
from tests.support.postgres import running
from tests.support.servers import Server

SCRIPT = Path(__file__).with_name("requests.lua")
WORKERS = (1, 2, 4)
CLIENTS = 16
SECONDS = 4
# Kind → its clients, of 16. Each client sends its next request after the response.
LOADS = {
    "reads": {"read": 16},
    "writes": {"write": 16},
    "logins": {"login": 16},
    "mix": {"read": 12, "write": 3, "login": 1},
}
# Clients of the mix are added until a response is an error, or the p99 of one kind is too long.
FACTORS = (2, 4, 8, 16, 32, 64)
TOO_LONG = 1000.0


@dataclass(frozen=True)
class Figures:
    """What wrk saw of one kind of request. Times are in milliseconds."""

    requests: int
    seconds: float
    median: float
    p99: float
    # Responses that were errors, and requests without a response.
    status: int
    broken: int

    @property
    def errors(self) -> int:
        return self.status + self.broken

    def __str__(self) -> str:
        rate = f"{self.requests / self.seconds:,.0f}/s, p50 {self.median:,.0f} ms"
        errors = f", errors: {self.errors}" if self.errors else ""
        return f"{rate}, p99 {self.p99:,.0f} ms{errors}"


def load(server: Server, users: int, token: str, clients: dict[str, int]) -> dict[str, Figures]:
    """All kinds at the same time."""
    running = {}
    for kind, connections in clients.items():
        command = ["wrk", "--threads=1", f"--connections={connections}", f"--duration={SECONDS}s"]
        command += ["--timeout=60s", f"--script={SCRIPT}", f"http://127.0.0.1:{server.port}"]
        arguments = [kind, str(users), token, quote(PASSWORD), f"{kind}-{time.time_ns()}"]
        running[kind] = subprocess.Popen(
            [*command, "--", *arguments], stdout=subprocess.PIPE, text=True
        )
    printed = {kind: process.communicate()[0] for kind, process in running.items()}
    return {kind: Figures(**json.loads(text.splitlines()[-1])) for kind, text in printed.items()}


def breaking_point(server: Server, users: int, token: str) -> str:
    for factor in FACTORS:
        clients = {kind: number * factor for kind, number in LOADS["mix"].items()}
        found = load(server, users, token, clients)
        kind = max(found, key=lambda kind: (found[kind].errors, found[kind].p99))
        if found[kind].errors:
            return f"{found[kind].errors} {kind}s fail at {CLIENTS * factor} clients"
        if found[kind].p99 > TOO_LONG:
            return f"p99 of {kind}s is {found[kind].p99 / 1000:.1f} s at {CLIENTS * factor} clients"
    return f"nothing up to {CLIENTS * FACTORS[-1]} clients"


def on(name: str, url: str, project: Path, users: int, machine: Machine) -> Iterator[Row]:
    environment = {"DATABASE_URL": url, **BEHIND_A_PROXY}
    for workers in WORKERS:
        command = [sys.executable, "-m", "app", "serve", "--workers", str(workers)]
        with Server(machine, command, project, **environment) as server:
            token = server.log_in(ADMINISTRATOR, PASSWORD).json()["access_token"]
            load(server, users, token, LOADS["mix"])
            for what, clients in LOADS.items():
                for kind, figures in load(server, users, token, clients).items():
                    part = f", its {kind}s" if len(clients) > 1 else ""
                    yield Row(f"{name}, workers: {workers}, {what}{part}", str(figures))
            broken = breaking_point(server, users, token)
            yield Row(f"{name}, workers: {workers}, what breaks first", broken)


def measure(project: Path, database: Path, users: int, home: Path) -> list[Row]:
    if not shutil.which("wrk"):
        sys.exit("The section `workers` needs wrk. Install it first: apt install wrk")
    machine = Machine(home, {"python3": base_python()})
    file = copy_of(database, "workers")
    with closing(sqlite3.connect(file)) as connection, connection:
        # Clients log in as a thousand users.
        copy = "UPDATE users SET password = (SELECT password FROM users WHERE id = 1) WHERE id < ?"
        connection.execute(copy, [1002])
    with running() as postgres:
        run(project, postgres.url(), "alembic", "upgrade", "head")
        run(project, f"sqlite:///{file}", "app", "db", "copy-to", postgres.url())
        return [
            *on("SQLite", f"sqlite:///{file}", project, users, machine),
            *on("PostgreSQL", postgres.url(), project, users, machine),
        ]
