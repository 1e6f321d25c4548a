"""A new version, and then the old one again, next to the other one and without an outage."""

import os
import re
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg
import pytest

from tests.support.clusters import balancer, wait_until
from tests.support.machines import Machine
from tests.support.postgres import running
from tests.support.projects import Generate, Project
from tests.support.servers import Answer, Server, free_port

Report = Callable[[str], None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM"),
]

SERVE = [sys.executable, "-m", "app", "serve"]
# Long enough for the load balancer to notice.
DRAIN_SECONDS = 3

ROUTES = """
import asyncio

from app.api.deps import SessionDep
from app.models.user import Permission


@app.get("/slow")
async def answer_slowly() -> str:
    await asyncio.sleep(2)
    return "done"


@app.get("/release")
async def read_release() -> str:
    return "{release}"


@app.post("/rows/{{number}}")
async def write_row(number: int, session: SessionDep) -> str:
    session.add(Permission(name=f"row {{number}}", description=""{values}))
    return "{release}"
"""
DESCRIPTION = "    description: Mapped[str] = mapped_column(String(255))\n"
CATEGORY = "    category: Mapped[str | None] = mapped_column(String(20))\n"


@pytest.fixture(scope="module")
def old(generate: Generate, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The release that runs. No test changes it."""
    copy = tmp_path_factory.mktemp("old") / "project"
    shutil.copytree(generate(auth=False).path, copy)
    with (copy / "app/main.py").open("a") as main:
        main.write(ROUTES.format(release="old", values=""))
    return Project(copy, {})


@pytest.fixture(scope="module")
def new(old: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The next release, which has a column more, and fills it."""
    copy = Project(tmp_path_factory.mktemp("new") / "project", {})
    shutil.copytree(old.path, copy.path)
    main = old.read("app/main.py").replace('"old"', '"new"').replace('""))', '"", category="new"))')
    (copy.path / "app/main.py").write_text(main)
    models = old.read("app/models/user.py").replace(DESCRIPTION, DESCRIPTION + CATEGORY)
    (copy.path / "app/models/user.py").write_text(models)
    place = {"DATABASE_URL": f"sqlite:///{copy.path}/empty.db"}
    copy.succeed("alembic", "upgrade", "head", **place)
    copy.succeed("alembic", "revision", "--autogenerate", "-m", "category", **place)
    (revision,) = {*copy.path.glob("alembic/versions/*.py")} - {
        copy.path / file for file in old.files()
    }
    assert re.findall(r"\.(\w+)\(", revision.read_text().split("def downgrade")[0]) == [
        "batch_alter_table",
        "add_column",
        "Column",
        "String",
    ]
    return copy


@pytest.mark.parametrize("workers", ["1", "2"])
def test_r25_a_server_is_not_ready_from_sigterm_on_but_serves_on(
    machine: Machine, old: Project, tmp_path: Path, workers: str
) -> None:
    place = {"DATABASE_URL": f"sqlite:///{tmp_path}/app.db"}
    old.succeed("alembic", "upgrade", "head", **place)
    command = [*SERVE, "--workers", workers]
    settings = {**place, "DRAIN_SECONDS": str(DRAIN_SECONDS)}
    with Server(machine, command, old.path, **settings) as server, ThreadPoolExecutor() as clients:
        wait_until(lambda: server.get("/health/ready").status == 200)
        wait_until(lambda: server.output.count("startup complete") == int(workers))
        asked = time.monotonic()
        os.kill(server.process.pid, signal.SIGTERM)
        wait_until(lambda: server.get("/health/ready").status == 503)
        noticed = time.monotonic() - asked
        time.sleep(0.5)
        # Again, to the parent and the workers.
        os.killpg(server.process.pid, signal.SIGTERM)
        while time.monotonic() < asked + DRAIN_SECONDS - 1:
            assert server.get("/health/ready").json()["detail"] == "The app is stopping."
            assert server.get("/health/live").status == 200
            assert server.get("/release").status == 200
        slow = clients.submit(server.get, "/slow")
        server.process.wait(timeout=30)
        took = time.monotonic() - asked
        assert slow.result().status == 200

    assert noticed < 2
    assert took > DRAIN_SECONDS


@dataclass
class Load:
    """Clients that write and read through the load balancer."""

    entrance: Server
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    slowest: float = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, client: int) -> None:
        number = client * 1_000_000
        while not self.stop.is_set():
            number += 1
            answer = self.request(partial(self.entrance.post, f"/rows/{number}", {}))
            if answer is not None:
                self.written.append(f"row {number}")
                self.counts[f"writes by {answer.json()} code"] += 1
            if self.request(partial(self.entrance.get, "/release")) is not None:
                self.counts["reads"] += 1
            time.sleep(0.05)

    def await_writes(self, release: str) -> None:
        """Until this code has written some more rows."""
        enough = self.counts[f"writes by {release} code"] + 10
        wait_until(lambda: self.counts[f"writes by {release} code"] > enough)

    def request(self, send: Callable[[], Answer]) -> Answer | None:
        """The response, unless the request failed."""
        started = time.monotonic()
        try:
            answer = send()
        except OSError as error:
            self.failures.append(repr(error))
            return None
        self.slowest = max(self.slowest, time.monotonic() - started)
        if answer.status == 200:
            return answer
        self.failures.append(f"{answer.status} {answer.body[:200]!r}")
        return None

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(4) as clients:
            try:
                done = [clients.submit(self.run, client) for client in range(4)]
                yield
                time.sleep(1)
            finally:
                self.stop.set()
            for client in done:
                client.result()


class Entrance(Server):
    """The port of a load balancer."""

    def __init__(self, port: int) -> None:
        self.port = port


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "SQLite":
        yield f"sqlite:///{tmp_path}/app.db"
    else:
        with running() as server:
            yield server.url()


def test_r45_a_rolling_deploy_and_a_roll_back_fail_no_request_and_lose_no_write(
    machine: Machine, old: Project, new: Project, database_url: str, report: Report
) -> None:
    settings = {
        "DATABASE_URL": database_url,
        "DRAIN_SECONDS": str(DRAIN_SECONDS),
        "LOG_LEVEL": "WARNING",
    }
    ports = [free_port(), free_port()]

    def start(code: Project, host: int) -> Server:
        place = {**settings, "PORT": str(ports[host])}
        server = Server(machine, SERVE, code.path, **place).__enter__()
        wait_until(lambda: server.get("/health/ready").status == 200)
        return server

    def migrate(code: Project) -> str:
        said = code.succeed("alembic", "upgrade", "head", DATABASE_URL=database_url)
        # The old code is ready still, and so is the new code.
        assert [server.get("/health/ready").status for server in hosts] == [200, 200]
        return said

    def replace(code: Project, release: str) -> None:
        for host, server in enumerate(hosts):
            os.kill(server.process.pid, signal.SIGTERM)
            server.process.wait(timeout=60)
            hosts[host] = start(code, host)
            load.await_writes(release)

    old.succeed("alembic", "upgrade", "head", DATABASE_URL=database_url)
    hosts = [start(old, host) for host in range(2)]
    try:
        with balancer(ports) as port:
            load = Load(Entrance(port))
            wait_until(lambda: load.entrance.get("/release").status == 200)
            with load.running():
                assert "Running upgrade" in migrate(new)
                replace(new, "new")
                assert "The database is ahead of this code, which works" in migrate(old)
                replace(old, "old")
    finally:
        for server in hosts:
            server.stop(signal.SIGTERM)

    figures = ", ".join(f"{count} {what}" for what, count in sorted(load.counts.items()))
    report(f"{figures}; {len(load.failures)} failed, slowest {load.slowest:.2f} s")
    assert not load.failures, (load.failures[:5], [server.output[-2000:] for server in hosts])
    rows = read(database_url, "SELECT name, category FROM permissions")
    assert not {*load.written} - {name for name, _ in rows}
    assert {category for _, category in rows} == {None, "new"}
    assert "is ahead of this code" in old.succeed("app", "check", DATABASE_URL=database_url)


def read(url: str, query: str) -> list[tuple[str, str | None]]:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return connection.execute(query).fetchall()
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()
