"""Many rows and many clients: pages of a million users, a burst of logins, queues of writers."""

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.databases import ADMINISTRATOR, PASSWORD, copy_of
from benchmarks.per_request import Worker
from benchmarks.table import ROUNDS, Row, compared, limited
from tests.support.machines import Machine, base_python
from tests.support.servers import Server

UVICORN = [sys.executable, "-m", "uvicorn", "app.main:app", "--log-level", "warning"]
# Logins are counted per address, so each one here comes from a different address.
BEHIND_A_PROXY = {"LOG_LEVEL": "ERROR", "TRUSTED_PROXIES": "127.0.0.0/8"}
WRITERS = 64
WRITES = 10


def percentile_99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def pages(project: Path, small: tuple[Path, int], large: tuple[Path, int]) -> list[Row]:
    """The same pages of both databases, in turns."""
    workers = [
        Worker("ours", project, copy_of(file, "pages"), users) for file, users in (small, large)
    ]
    rows = []
    with workers[0], workers[1]:
        for page in ("first page", "list", "last page"):
            rounds = [[worker.ask(page, 50)["clock"] for worker in workers] for _ in range(ROUNDS)]
            few, many = (statistics.median(r[n] for r in rounds) for n in (0, 1))
            what = f"50 of {large[1]:,} users, {'some page' if page == 'list' else page}"
            rows.append(compared(what, many, "ms", few, f"{small[1]:,} users", 1.2))
    return rows


def storm(project: Path, database: Path, machine: Machine) -> Row:
    """Other requests while 32 people log in at once."""
    environment = {"DATABASE_URL": f"sqlite:///{copy_of(database, 'storm')}", **BEHIND_A_PROXY}
    with Server(machine, UVICORN, project, **environment) as server:
        token = server.log_in(ADMINISTRATOR, PASSWORD).json()["access_token"]
        me = {"Authorization": f"Bearer {token}"}

        def look() -> float:
            return timed(lambda: server.get("/api/v1/users/me", **me))

        def log_in(number: int) -> int:
            headers = {"X-Forwarded-For": f"203.0.113.{number}"}
            return server.log_in(f"unknown-{number}", PASSWORD, headers).status

        for _ in range(50):
            look()
        idle = percentile_99([look() for _ in range(300)])
        with ThreadPoolExecutor(32) as people:
            answers = [people.submit(log_in, number) for number in range(32)]
            busy = []
            while not all(answer.done() for answer in answers):
                busy.append(look())
    assert {answer.result() for answer in answers} == {401}
    what = "p99 of other requests while 32 log in"
    return compared(what, percentile_99(busy) * 1000, "ms", idle * 1000, "idle", 10)


def writers(project: Path, database: Path, machine: Machine) -> Row:
    """Committed writes of many clients to two workers; any status but 200 is an error."""
    environment = {"DATABASE_URL": f"sqlite:///{copy_of(database, 'writers')}", **BEHIND_A_PROXY}
    took: list[float] = []
    begin = threading.Barrier(WRITERS)
    with Server(machine, [*UVICORN, "--workers", "2"], project, **environment) as server:
        token = server.log_in(ADMINISTRATOR, PASSWORD).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

        def write(writer: int) -> None:
            begin.wait()
            for number in range(WRITES):
                body = json.dumps({"email": f"w{writer}-n{number}@example.com"}).encode()
                path = f"/api/v1/users/{2 + writer * WRITES + number}"
                started = time.perf_counter()
                status = server.send("PATCH", path, body, headers).status
                took.append(time.perf_counter() - started)
                assert status == 200, status

        with ThreadPoolExecutor(WRITERS) as clients:
            list(clients.map(write, range(WRITERS)))
    what = f"p99 of {WRITERS} writers at 2 workers, {len(took)} commits, no error"
    return limited(what, percentile_99(took) * 1000, "ms", 1500)


def measure(
    project: Path, small: tuple[Path, int], large: tuple[Path, int], home: Path
) -> list[Row]:
    machine = Machine(home, {"python3": base_python()})
    return [
        *pages(project, small, large),
        storm(project, small[0], machine),
        writers(project, small[0], machine),
    ]
