"""SQLite under production load: many clients, held locks, kills, faults. Prints measurements."""

import http.client
import os
import random
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.machines import Machine
from tests.support.projects import Project
from tests.support.servers import Server

Report = Callable[[str], None]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")]

UVICORN = [sys.executable, "-m", "uvicorn", "probe:app", "--log-level", "warning"]
QUIET = {"LOG_LEVEL": "WARNING"}
# Outside of development, the app does not even start with a database that it cannot open.
LENIENT = {**QUIET, "ENVIRONMENT": "development"}


def execute(database: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def is_whole(database: Path) -> bool:
    return execute(database, "PRAGMA integrity_check") == [("ok",)] and not execute(
        database, "PRAGMA foreign_key_check"
    )


def percentile_99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


@pytest.fixture
def server(machine: Machine, probed: Path) -> Iterator[Server]:
    with Server(machine, UVICORN, probed, **QUIET) as server:
        yield server


@pytest.mark.alone
@pytest.mark.parametrize("workers", [1, 4])
def test_i10_twenty_clients_lose_no_update(
    machine: Machine, probed: Path, workers: int, report: Report
) -> None:
    execute(probed / "app.db", "INSERT INTO permissions VALUES (1, 'counter', '0')")
    took: list[float] = []

    def client(server: Server) -> set[int]:
        statuses = set()
        for _ in range(50):
            started = time.perf_counter()
            statuses.add(server.get("/counter", "POST").status)
            took.append(time.perf_counter() - started)
        return statuses

    command = [*UVICORN, "--workers", str(workers)]
    with Server(machine, command, probed, **QUIET) as server, ThreadPoolExecutor(20) as clients:
        statuses = set().union(*clients.map(client, [server] * 20))

    assert statuses == {200}
    assert execute(probed / "app.db", "SELECT description FROM permissions") == [("1000",)]
    p99 = percentile_99(took)
    report(f"20 clients x 50, {workers} workers: 1000 exact, p99 {p99 * 1000:.0f} ms")
    assert p99 < 5


@pytest.mark.alone
def test_readers_do_not_wait_for_a_writer(server: Server, probed: Path, report: Report) -> None:
    took = []
    with closing(sqlite3.connect(probed / "app.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO permissions VALUES (1, 'held', '')")
        for _ in range(200):
            started = time.perf_counter()
            assert server.get("/rows").json() == 0
            took.append(time.perf_counter() - started)
        writer.execute("ROLLBACK")

    report(f"reads during a held write lock: p99 {percentile_99(took) * 1000:.1f} ms")
    assert percentile_99(took) < 0.5


@pytest.mark.alone
def test_a_writer_that_waits_too_long_gets_a_503(server: Server, probed: Path) -> None:
    with closing(sqlite3.connect(probed / "app.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        refused = server.get("/pairs/1", "POST")
        other.execute("ROLLBACK")

    assert refused.status == 503
    assert refused.headers["retry-after"] == "5"
    assert server.get("/pairs/1", "POST").status == 200


@pytest.mark.alone
def test_kill_9_under_load_loses_no_acknowledged_commit(
    machine: Machine, probed: Path, report: Report
) -> None:
    acknowledged: set[int] = set()
    slowest_start = 0.0
    for round_number in range(50):
        started = time.perf_counter()
        server = Server(machine, UVICORN, probed, **QUIET).__enter__()
        slowest_start = max(slowest_start, time.perf_counter() - started)

        def client(number: int, server: Server = server, round_number: int = round_number) -> None:
            for i in range(10_000):
                key = round_number * 1_000_000 + number * 10_000 + i
                try:
                    if server.get(f"/pairs/{key}", "POST").status == 200:
                        acknowledged.add(key)
                except (OSError, http.client.HTTPException):
                    return

        clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
        for thread in clients:
            thread.start()
        time.sleep(random.uniform(0.02, 0.3))
        server.stop(signal.SIGKILL)
        for thread in clients:
            thread.join()

    database = probed / "app.db"
    names = {str(row[0]) for row in execute(database, "SELECT name FROM permissions")}
    lost = [key for key in acknowledged if f"first {key}" not in names]
    firsts = {name.removeprefix("first ") for name in names if name.startswith("first ")}
    seconds = {name.removeprefix("second ") for name in names if name.startswith("second ")}
    report(f"50 kills: {len(acknowledged)} acknowledged, {len(lost)} lost, {len(names) // 2} there")
    assert len(acknowledged) > 50
    assert lost == []
    assert firsts == seconds
    # At most one request a client can have been written without its answer arriving.
    assert len(firsts) - len(acknowledged) <= 50 * 4
    assert is_whole(database)
    assert slowest_start < 5


@pytest.mark.parametrize(("synchronous", "syncs_each"), [("FULL", True), ("NORMAL", False)])
def test_only_full_syncs_every_commit(
    machine: Machine,
    probed: Path,
    tmp_path: Path,
    synchronous: str,
    syncs_each: bool,
    report: Report,
) -> None:
    trace = tmp_path / "trace"
    strace = [
        shutil.which("strace") or "strace",
        "-f",
        "-qq",
        "-e",
        "trace=fdatasync,fsync",
        "-o",
        str(trace),
    ]
    settings = {**QUIET, "SQLITE_SYNCHRONOUS": synchronous}
    with Server(machine, [*strace, *UVICORN], probed, **settings) as server:
        before = trace.read_text().count("sync(")
        for number in range(100):
            assert server.get(f"/pairs/{number}", "POST").status == 200
        syncs = trace.read_text().count("sync(") - before

    report(f"{synchronous}: {syncs} syncs for 100 commits")
    assert (syncs >= 100) == syncs_each


def test_a_backup_under_six_writers_has_every_acknowledged_commit(
    server: Server, probed: Path, tmp_path: Path, report: Report
) -> None:
    acknowledged: list[int] = []
    stop = threading.Event()

    def write(writer: int) -> None:
        number = writer * 1_000_000
        while not stop.is_set():
            number += 1
            if server.get(f"/pairs/{number}", "POST").status == 200:
                acknowledged.append(number)

    with ThreadPoolExecutor(6) as writers:
        for writer in range(6):
            writers.submit(write, writer)
        try:
            for number in range(12):
                before = set(acknowledged)
                copy = tmp_path / f"{number}.db"
                Project(probed, {}).succeed("app", "db", "backup", str(copy))
                there = {str(row[0]) for row in execute(copy, "SELECT name FROM permissions")}
                assert {f"first {key}" for key in before} <= there
                assert is_whole(copy)
                assert copy.stat().st_mode & 0o077 == 0
        finally:
            stop.set()
    report(f"12 backups under 6 writers: {len(acknowledged)} pairs written")


def test_a_lost_database_is_restored_from_a_backup(
    machine: Machine, probed: Path, tmp_path: Path
) -> None:
    database, copy = probed / "app.db", tmp_path / "copy.db"
    project = Project(probed, {})
    with Server(machine, UVICORN, probed, **QUIET) as server:
        server.get("/pairs/1", "POST")
        project.succeed("app", "db", "backup", str(copy))
        refused = project.run("app", "db", "restore", str(copy))
        assert refused.returncode == 1
        assert "stop the app and move the file away" in refused.stderr
        assert "Traceback" not in refused.stderr
    for file in probed.glob("app.db*"):
        file.unlink()

    project.succeed("app", "db", "restore", str(copy))

    assert is_whole(database)
    with Server(machine, UVICORN, probed, **QUIET) as server:
        assert server.get("/health/ready").status == 200
        assert server.get("/rows").json() == 2


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_stops_writes_but_not_reads(
    machine: Machine, probed: Path, report: Report
) -> None:
    disk = probed / "disk"
    disk.mkdir()
    with small_disk(disk, 2):
        url = {"DATABASE_URL": f"sqlite:///{disk / 'app.db'}"}
        Project(probed, {}).succeed("alembic", "upgrade", "head", **url)
        with Server(machine, UVICORN, probed, **QUIET, **url) as server:
            assert server.get("/pairs/0", "POST").status == 200, server.output
            (disk / "ballast").write_bytes(b"x" * 10**5)
            written = 1
            while (status := server.get(f"/pairs/{written}", "POST").status) == 200:
                written += 1
                assert written < 20_000
            assert status == 503
            assert server.get("/rows").json() == 2 * written
            (disk / "ballast").unlink()
            assert server.get("/pairs/-1", "POST").status == 200
        assert is_whole(disk / "app.db")
    report(
        f"2 MiB disk: {written} pairs, then 503; reads went on, and writes after space was freed"
    )


def test_a_read_only_file_is_a_503(machine: Machine, probed: Path) -> None:
    """Read-only by its mount, which also applies to root."""
    subprocess.run(["mount", "--bind", probed, probed], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", probed], check=True)
        with Server(machine, UVICORN, probed, **LENIENT) as server:
            assert server.get("/health/live").status == 200
            assert server.get("/health/ready").status == 503
            assert server.get("/pairs/1", "POST").status == 503
            subprocess.run(["mount", "-o", "remount,bind,rw", probed], check=True)
            assert server.get("/health/ready").status == 200
            assert server.get("/pairs/1", "POST").status == 200
    finally:
        subprocess.run(["umount", "--lazy", probed], check=True)


@pytest.mark.parametrize("damage", ["header", "page", "empty"])
def test_a_corrupt_file_is_never_ready(machine: Machine, probed: Path, damage: str) -> None:
    database = probed / "app.db"
    content = bytearray(database.read_bytes())
    if damage == "header":
        content[:8192] = random.randbytes(8192)
    elif damage == "page":
        for start in range(4096, len(content), 4096):
            content[start : start + 64] = random.randbytes(64)
    else:
        content = bytearray()
    database.write_bytes(content)

    with Server(machine, UVICORN, probed, **LENIENT) as server:
        assert server.get("/health/live").status == 200
        assert server.get("/health/ready").status == 503
        assert server.get("/pairs/1", "POST").status in {500, 503}


def test_three_upgrades_at_once_all_succeed(probed: Path) -> None:
    for attempt in range(5):
        url = f"sqlite:///./{attempt}.db"
        with ThreadPoolExecutor(3) as migrators:
            upgrade = ("alembic", "upgrade", "head")
            runs = [
                migrators.submit(Project(probed, {}).run, *upgrade, DATABASE_URL=url)
                for _ in range(3)
            ]
        said = [run.result().stdout + run.result().stderr for run in runs]
        assert [run.result().returncode for run in runs] == [0, 0, 0], said
        assert sum("Running upgrade" in text for text in said) == 1


def test_a_client_that_disconnects_leaves_a_pair_or_nothing(server: Server, probed: Path) -> None:
    for number in range(100):
        with closing(_connect(server.port)) as connection:
            request = (
                f"POST /pairs/{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
            )
            connection.sendall(request.encode())
            time.sleep(random.uniform(0, 0.004))

    assert server.get("/pairs/1000", "POST").status == 200
    names = [str(row[0]) for row in execute(probed / "app.db", "SELECT name FROM permissions")]
    assert sorted(n.split()[1] for n in names if n.startswith("first")) == sorted(
        n.split()[1] for n in names if n.startswith("second")
    )


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)
