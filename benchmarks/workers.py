"""`serve` with 1, 2 and 4 workers on both databases, and what breaks first when clients are added.

"Two hosts" are two servers behind HAProxy, which share PostgreSQL through PgBouncer. The clients
are wrk, which takes little of the cores that it shares with the server.
"""

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from argon2 import PasswordHasher, extract_parameters

from benchmarks.databases import ADMINISTRATOR, PASSWORD, copy_of, run
from benchmarks.load import BEHIND_A_PROXY
from benchmarks.table import Row, compared, limited
from tests.support.clusters import balancer, pooler
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
# Of what is compared in turns.
ROUNDS = 3
# Of the users who log in. More than clients of a load that logs in.
HASHES = 100
# Milliseconds that the only worker may compute for a request on SQLite, and how many times as many
# on PostgreSQL.
PROCESSOR_GOALS = {"who am I": 1.3, "list": 2.2}
POSTGRESQL_GOAL = 1.1
# Of PgBouncer, as in a project's docs/operating.md.
POOL_SIZE = 20


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
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def errors(self) -> int:
        return self.status + self.broken

    def __str__(self) -> str:
        rate = f"{self.rate:,.0f}/s, p50 {self.median:,.0f} ms"
        errors = f", errors: {self.errors}" if self.errors else ""
        return f"{rate}, p99 {self.p99:,.0f} ms{errors}"


class Place(NamedTuple):
    """Where clients ask, and the token they send. `process` is that of the first server."""

    port: int
    token: str
    process: int


def load(place: Place, users: int, clients: dict[str, int]) -> dict[str, Figures]:
    """All kinds at the same time."""
    running = {}
    for kind, connections in clients.items():
        command = ["wrk", "--threads=1", f"--connections={connections}", f"--duration={SECONDS}s"]
        command += ["--timeout=60s", f"--script={SCRIPT}", f"http://127.0.0.1:{place.port}"]
        arguments = [kind, str(users), place.token, quote(PASSWORD), f"{kind}-{time.time_ns()}"]
        running[kind] = subprocess.Popen(
            [*command, "--", *arguments], stdout=subprocess.PIPE, text=True
        )
    printed = {kind: process.communicate()[0] for kind, process in running.items()}
    return {kind: Figures(**json.loads(text.splitlines()[-1])) for kind, text in printed.items()}


def breaking_point(place: Place, users: int) -> str:
    for factor in FACTORS:
        clients = {kind: number * factor for kind, number in LOADS["mix"].items()}
        found = load(place, users, clients)
        kind = max(found, key=lambda kind: (found[kind].errors, found[kind].p99))
        if found[kind].errors:
            return f"{found[kind].errors} {kind}s fail at {CLIENTS * factor} clients"
        if found[kind].p99 > TOO_LONG:
            return f"p99 of {kind}s is {found[kind].p99 / 1000:.1f} s at {CLIENTS * factor} clients"
    return f"nothing up to {CLIENTS * FACTORS[-1]} clients"


@contextmanager
def serving(
    machine: Machine, project: Path, url: str, workers: int, hosts: int = 1
) -> Iterator[Place]:
    environment = {"DATABASE_URL": url, **BEHIND_A_PROXY}
    command = [sys.executable, "-m", "app", "serve", "--workers", str(workers)]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Server(machine, command, project, **environment))
            for _ in range(hosts)
        ]
        # As the administrator.
        token = servers[0].log_in(ADMINISTRATOR, PASSWORD).json()["access_token"]
        ports = [server.port for server in servers]
        port = stack.enter_context(balancer(ports)) if hosts > 1 else ports[0]
        yield Place(port, token, servers[0].process.pid)


def on(name: str, url: str, project: Path, users: int, machine: Machine) -> Iterator[Row]:
    for workers in WORKERS:
        with serving(machine, project, url, workers) as place:
            load(place, users, LOADS["mix"])
            for what, clients in LOADS.items():
                for kind, figures in load(place, users, clients).items():
                    part = f", its {kind}s" if len(clients) > 1 else ""
                    yield Row(f"{name}, workers: {workers}, {what}{part}", str(figures))
            broken = breaking_point(place, users)
            yield Row(f"{name}, workers: {workers}, what breaks first", broken)


def processor_time(project: Path, urls: list[str], users: int, machine: Machine) -> Iterator[Row]:
    """What a busy worker computes for a request, in turns on SQLite and on PostgreSQL."""
    with (
        serving(machine, project, urls[0], 1) as on_sqlite,
        serving(machine, project, urls[1], 1) as on_postgresql,
    ):
        places = (on_sqlite, on_postgresql)
        for kind, goal in PROCESSOR_GOALS.items():
            rounds = [
                [milliseconds_computed(place, users, kind) for place in places]
                for _ in range(ROUNDS)
            ]
            sqlite, postgresql = map(statistics.median, zip(*rounds, strict=True))
            what = f"{kind}, processor time with {CLIENTS} clients"
            yield limited(what, sqlite, "ms", goal)
            yield compared(
                f"{what}, PostgreSQL", postgresql, "ms", sqlite, "SQLite", POSTGRESQL_GOAL
            )


def milliseconds_computed(place: Place, users: int, kind: str) -> float:
    """For each request, by the process of the server, and not by the database server."""
    before = seconds_computed(place.process)
    requests = load(place, users, {kind: CLIENTS})[kind].requests
    return (seconds_computed(place.process) - before) / requests * 1000


def seconds_computed(process: int) -> float:
    # The name of the process, in parentheses, may contain spaces.
    _, _, values = Path(f"/proc/{process}/stat").read_text().rpartition(")")
    user, system = values.split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def behind_a_pooler(
    direct: str, pooled: str, project: Path, users: int, machine: Machine
) -> Iterator[Row]:
    """Two hosts, and in turns one host with as many workers and without a pooler."""
    for workers in WORKERS:
        name = f"two hosts, workers of each: {workers}"
        with (
            serving(machine, project, pooled, workers, hosts=2) as two,
            serving(machine, project, direct, workers * 2) as one,
        ):
            for kind in ("read", "write", "login", "office login"):
                rounds = [in_turns(two, one, users, kind) for _ in range(ROUNDS)]
                # The round in the middle: the machine may be busy with something else.
                ratio, ours, against = sorted(rounds, key=itemgetter(0))[ROUNDS // 2]
                baseline = f"directly: {against}"
                yield Row(f"{name}, {kind}s", f"{ours}, {ratio:.2f}x", baseline=baseline)
            yield Row(f"{name}, what breaks first", breaking_point(two, users))


def in_turns(two: Place, one: Place, users: int, kind: str) -> tuple[float, Figures, Figures]:
    ours, against = (load(place, users, {kind: CLIENTS})[kind] for place in (two, one))
    return ours.rate / against.rate, ours, against


def set_passwords(connection: sqlite3.Connection) -> None:
    """Clients log in as a thousand users. Those who log in at the same time have different hashes:

    the throttle tells users by their hashes in a network that it knows.
    """
    (stored,) = connection.execute("SELECT password FROM users WHERE id = 1").fetchone()
    hasher = PasswordHasher.from_parameters(extract_parameters(stored))
    for number in range(HASHES):
        change = "UPDATE users SET password = ? WHERE id BETWEEN 2 AND 1001 AND id % ? = ?"
        connection.execute(change, [hasher.hash(PASSWORD), HASHES, number])


def measure(project: Path, database: Path, users: int, home: Path) -> list[Row]:
    if not shutil.which("wrk"):
        sys.exit("The section `workers` needs wrk. Install it first: apt install wrk")
    machine = Machine(home, {"python3": base_python()})
    file = copy_of(database, "workers")
    with closing(sqlite3.connect(file)) as connection, connection:
        set_passwords(connection)
    with running() as postgres, pooler(postgres, POOL_SIZE) as through:
        run(project, postgres.url(), "alembic", "upgrade", "head")
        run(project, f"sqlite:///{file}", "app", "db", "copy-to", postgres.url())
        urls = [f"sqlite:///{file}", postgres.url()]
        return [
            *processor_time(project, urls, users, machine),
            *on("SQLite", f"sqlite:///{file}", project, users, machine),
            *on("PostgreSQL", postgres.url(), project, users, machine),
            *behind_a_pooler(postgres.url(), through("postgres"), project, users, machine),
        ]
