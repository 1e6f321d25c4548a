"""`serve` with 1, 2 and 4 workers on both databases, and what breaks first when clients are added.

The clients share the cores with the server, so the figures are lower than with a second machine.
"""

import http.client
import itertools
import json
import random
import sqlite3
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.databases import ADMINISTRATOR, PASSWORD, copy_of, run
from benchmarks.load import BEHIND_A_PROXY, percentile_99
from benchmarks.table import Row
from tests.support.machines import Machine, base_python
from tests.support.postgres import running
from tests.support.servers import Server

WORKERS = (1, 2, 4)
CLIENTS = 16
SECONDS = 4.0
# Of a hundred requests.
KINDS = {
    "reads": {"read": 100},
    "writes": {"write": 100},
    "logins": {"login": 100},
    "mix": {"read": 80, "write": 15, "login": 5},
}
# Added until an answer is an error, or 99 % of one kind take longer than a second.
MORE_CLIENTS = (32, 64, 128, 256, 512, 1024)
TOO_LONG = 1.0
FORM = "application/x-www-form-urlencoded"

# What a request was, its status (0: none), how many seconds it took, and when it ended.
Answer = tuple[str, int, float, float]
Request = tuple[str, str, str, str, dict[str, str]]


def requests(client: int, users: int, token: str, kinds: dict[str, int]) -> Iterator[Request]:
    """The kind, method, path, body and headers of each request of this client."""
    dice = random.Random(client)  # noqa: S311
    me = {"Authorization": f"Bearer {token}"}
    for number in itertools.count():
        (kind,) = dice.choices(list(kinds), list(kinds.values()))
        path = f"/api/v1/users/{dice.randint(2, users)}"
        if kind == "read":
            yield kind, "GET", path, "", me
        elif kind == "write":
            body = json.dumps({"email": f"{client}-{number}-{time.time_ns()}@example.com"})
            yield kind, "PATCH", path, body, {**me, "Content-Type": "application/json"}
        else:
            form = urlencode({"username": f"user-{2 + client}", "password": PASSWORD})
            headers = {"Content-Type": FORM, "X-Forwarded-For": f"203.0.113.{client % 250}"}
            yield kind, "POST", "/api/v1/auth/login", form, headers


def ask(port: int, planned: Iterator[Request], deadline: float) -> list[Answer]:
    """One client with one connection, which sends the next request after each answer."""
    answers: list[Answer] = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while time.monotonic() < deadline:
        kind, method, path, body, headers = next(planned)
        started, status = time.perf_counter(), 0
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            response.read()
            status = response.status
        except (OSError, http.client.HTTPException):
            connection.close()
        ended = time.perf_counter()
        answers.append((kind, status, ended - started, ended))
    connection.close()
    return answers


def load(
    server: Server, users: int, token: str, kinds: dict[str, int], clients: int
) -> list[Answer]:
    deadline = time.monotonic() + SECONDS
    with ThreadPoolExecutor(clients) as pool:
        planned = [requests(client, users, token, kinds) for client in range(clients)]
        answers = list(pool.map(lambda each: ask(server.port, each, deadline), planned))
    return [answer for each in answers for answer in each]


def row(what: str, answers: list[Answer]) -> Row:
    took = [seconds * 1000 for _, _, seconds, _ in answers]
    began = min(ended - seconds for _, _, seconds, ended in answers)
    elapsed = max(ended for *_, ended in answers) - began
    figure = f"{len(took) / elapsed:,.0f} requests/s, p50 {statistics.median(took):,.0f} ms"
    if wrong := errors(answers):
        figure += f", errors: {wrong}"
    return Row(what, f"{figure}, p99 {percentile_99(took):,.0f} ms")


def errors(answers: list[Answer]) -> str:
    found = Counter((kind, status) for kind, status, *_ in answers if status != 200)
    return ", ".join(f"{count} x {status} ({kind})" for (kind, status), count in found.items())


def breaking_point(server: Server, users: int, token: str) -> str:
    for clients in MORE_CLIENTS:
        answers = load(server, users, token, KINDS["mix"], clients)
        if wrong := errors(answers):
            return f"{wrong} at {clients} clients"
        by_kind = defaultdict(list)
        for kind, _, seconds, _ in answers:
            by_kind[kind].append(seconds)
        slowest = {kind: percentile_99(took) for kind, took in by_kind.items() if len(took) > 1}
        kind = max(slowest, key=lambda kind: slowest[kind])
        if slowest[kind] > TOO_LONG:
            return f"p99 of {kind}s is {slowest[kind]:.1f} s at {clients} clients"
    return f"nothing up to {MORE_CLIENTS[-1]} clients"


def on(name: str, url: str, project: Path, users: int, machine: Machine) -> Iterator[Row]:
    environment = {"DATABASE_URL": url, **BEHIND_A_PROXY}
    for workers in WORKERS:
        command = [sys.executable, "-m", "app", "serve", "--workers", str(workers)]
        with Server(machine, command, project, **environment) as server:
            token = server.log_in(ADMINISTRATOR, PASSWORD).json()["access_token"]
            load(server, users, token, KINDS["mix"], CLIENTS)
            for kind, shares in KINDS.items():
                answers = load(server, users, token, shares, CLIENTS)
                yield row(f"{name}, workers: {workers}, {kind}", answers)
            broken = breaking_point(server, users, token)
            yield Row(f"{name}, workers: {workers}, what breaks first", broken)


def measure(project: Path, database: Path, users: int, home: Path) -> list[Row]:
    machine = Machine(home, {"python3": base_python()})
    file = copy_of(database, "workers")
    with closing(sqlite3.connect(file)) as connection, connection:
        # Each client logs in as another user.
        copy = "UPDATE users SET password = (SELECT password FROM users WHERE id = 1) WHERE id < ?"
        connection.execute(copy, [MORE_CLIENTS[-1] + 2])
    with running() as postgres:
        run(project, postgres.url(), "alembic", "upgrade", "head")
        run(project, f"sqlite:///{file}", "app", "db", "copy-to", postgres.url())
        return [
            *on("SQLite", f"sqlite:///{file}", project, users, machine),
            *on("PostgreSQL", postgres.url(), project, users, machine),
        ]
