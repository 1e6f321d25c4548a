"""Litestream, as compose.yaml runs it, with a folder in place of the object storage."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tests.support.machines import Machine
from tests.support.servers import Server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="has no Litestream")]

LITESTREAM = Path(sys.executable).with_name("litestream")
UVICORN = [sys.executable, "-m", "uvicorn", "probe:app", "--log-level", "warning"]
# Litestream copies what has changed once a second.
SECONDS_UNTIL_COPIED = 3


@dataclass
class Host:
    """A project, its database in another folder, and Litestream with the project's files."""

    project: Path
    data: Path
    storage: str

    @property
    def environment(self) -> dict[str, str]:
        return {"LITESTREAM_URL": self.storage, "DATABASE_URL": f"sqlite:///{self.data}/app.db"}

    def command(self, service: str) -> list[str]:
        services = yaml.safe_load((self.project / "compose.yaml").read_text())["services"]
        return [word.replace("/data", str(self.data)) for word in services[service]["command"]]

    def litestream(self, *arguments: str) -> list[str]:
        config = self.project / "litestream.yml"
        text = (self.project / "deploy/litestream.yml").read_text()
        config.write_text(text.replace("/data", str(self.data)))
        return [str(LITESTREAM), arguments[0], "-config", str(config), *arguments[1:]]

    def restore(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = self.litestream(*(arguments or self.command("restore")))
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    def lose_database(self) -> None:
        shutil.rmtree(self.data)
        self.data.mkdir()


@pytest.fixture
def host(probed: Path, tmp_path: Path) -> Host:
    data = tmp_path / "data"
    data.mkdir()
    shutil.move(probed / "app.db", data)
    return Host(probed, data, f"file://{tmp_path}/storage")


@contextmanager
def running(host: Host, machine: Machine) -> Iterator[Server]:
    """The app and Litestream, which are killed at the end, as when a server is lost."""
    replicate = machine.popen(
        *host.litestream(*host.command("litestream")),
        cwd=host.project,
        environment=host.environment,
    )
    try:
        with Server(machine, UVICORN, host.project, **host.environment) as server:
            yield server
            time.sleep(SECONDS_UNTIL_COPIED)
            replicate.send_signal(signal.SIGKILL)
            server.stop(signal.SIGKILL)
    finally:
        replicate.kill()
        replicate.communicate()


def add_pairs(server: Server, numbers: range) -> None:
    for number in numbers:
        assert server.get(f"/pairs/{number}", "POST").status == 200


def test_a_new_server_gets_back_what_was_acknowledged_before_the_last_seconds(
    host: Host, machine: Machine, report: Callable[[str], None]
) -> None:
    with running(host, machine) as server:
        add_pairs(server, range(30))
    host.lose_database()

    started = time.perf_counter()
    restored = host.restore()

    assert restored.returncode == 0, restored.stderr
    report(f"restored in {time.perf_counter() - started:.1f} s")
    with running(host, machine) as server:
        assert server.get("/health/ready").status == 200
        assert server.get("/rows").json() == 60
        add_pairs(server, range(30, 31))
    # It runs before each start, and leaves the database there is.
    assert host.restore().returncode == 0
    with running(host, machine) as server:
        assert server.get("/rows").json() == 62
    host.lose_database()
    assert host.restore().returncode == 0
    with running(host, machine) as server:
        assert server.get("/rows").json() == 62


def test_the_first_server_starts_with_an_empty_storage(host: Host) -> None:
    host.lose_database()

    assert host.restore().returncode == 0

    assert list(host.data.iterdir()) == []


def test_without_an_answer_of_the_storage_there_is_no_new_database(host: Host) -> None:
    host.storage = "s3://shelf.localhost:9/nothing"
    assert host.restore().returncode == 0
    host.lose_database()

    assert host.restore().returncode != 0


def test_the_database_goes_back_to_an_earlier_time_and_is_copied_from_there(
    host: Host, machine: Machine
) -> None:
    with running(host, machine) as server:
        add_pairs(server, range(5))
        time.sleep(SECONDS_UNTIL_COPIED)
        before_the_mistake = datetime.now(UTC).isoformat(timespec="seconds")
        time.sleep(1)
        add_pairs(server, range(5, 10))
    (host.data / "app.db").rename(host.project / "damaged.db")
    for name in ("app.db-wal", "app.db-shm"):
        (host.data / name).unlink()

    at_that_time = "restore", "-timestamp", before_the_mistake, f"{host.data}/app.db"
    restored = host.restore(*at_that_time)

    assert restored.returncode == 0, restored.stderr
    with running(host, machine) as server:
        assert server.get("/rows").json() == 10
        add_pairs(server, range(20, 21))
    host.lose_database()
    assert host.restore().returncode == 0
    with running(host, machine) as server:
        assert server.get("/rows").json() == 12
