"""A project past one machine: a pooler, a standby, a load balancer and a fail-over."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest

from tests.support.clusters import balancer, pooler, standby, wait_until
from tests.support.machines import Machine
from tests.support.postgres import Postgres, program, running
from tests.support.projects import Generate, Project
from tests.support.servers import Server

Report = Callable[[str], None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(os.name == "nt", reason="Debian's PostgreSQL"),
]

PASSWORD = "seven wet otters on a raft"
OTHER_PASSWORD = "eight dry herons by the weir"
SERVE = [sys.executable, "-m", "uvicorn", "probe:app", "--log-level", "warning"]

# Reports where it reads, and never changes what it reads.
PROBE = """
from sqlalchemy import func, select, text

from app.api.deps import CurrentUser, ReplicaSessionDep, SessionDep
from app.main import create_app
from app.models.user import Permission, User

app = create_app()


@app.get("/report")
async def report(user: CurrentUser, session: ReplicaSessionDep) -> tuple[bool, int]:
    is_standby = await session.scalar(text("SELECT pg_is_in_recovery()"))
    return bool(is_standby), await session.scalar(select(func.count()).select_from(User)) or 0


@app.post("/report")
async def report_a_write(session: ReplicaSessionDep) -> bool:
    return bool(await session.scalar(text("SELECT pg_is_in_recovery()")))


@app.get("/bug")
async def write_to_the_standby(session: ReplicaSessionDep) -> None:
    session.add(Permission(name="bug", description=""))
    await session.flush()


@app.post("/rows/{number}")
async def write_row(number: int, session: SessionDep) -> int:
    session.add(Permission(name=f"row {number}", description=""))
    return number


@app.post("/locked")
async def wait_for_a_lock(session: SessionDep) -> str:
    permission = await session.get_one(Permission, 1, with_for_update=True)
    return permission.name
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def folder(generate: Generate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a login and `probe:app`, which no test changes."""
    copy = tmp_path_factory.mktemp("several") / "project"
    shutil.copytree(generate(auth=True).path, copy)
    (copy / "probe.py").write_text(PROBE)
    return copy


@pytest.fixture(scope="module")
def migrated(postgres: Postgres, folder: Path) -> str:
    """A database with an administrator, for copies."""
    query(postgres.url(), "CREATE DATABASE migrated")
    place = {"DATABASE_URL": postgres.url("migrated")}
    Project(folder, {}).succeed("alembic", "upgrade", "head", **place)
    account = ("app", "user", "create-admin", "ada", "ada@example.com")
    Project(folder, {}).succeed(*account, stdin=f"{PASSWORD}\n", **place)
    return "migrated"


@pytest.fixture
def database(postgres: Postgres, migrated: str, request: pytest.FixtureRequest) -> str:
    """The name of this test's database."""
    name = f"db_{abs(hash(request.node.name))}"
    query(postgres.url(), f"CREATE DATABASE {name} TEMPLATE {migrated}")
    return name


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def log_in(server: Server, name: str = "ada", address: int = 1) -> dict[str, str]:
    """The headers of a new login session. Logins are counted per address."""
    password = PASSWORD if name == "ada" else OTHER_PASSWORD
    answer = server.log_in(name, password, {"X-Forwarded-For": f"203.0.113.{address}"})
    assert answer.status == 200, answer.body
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def create_user(server: Server, name: str, headers: dict[str, str]) -> int:
    body = {"username": name, "email": f"{name}@example.com", "password": OTHER_PASSWORD}
    return server.post("/api/v1/users", body, headers).status


def test_all_tests_of_a_project_pass_through_a_pooler(
    folder: Path, postgres: Postgres, tmp_path: Path
) -> None:
    copy = tmp_path / "project"
    shutil.copytree(folder, copy)
    with pooler(postgres) as through:
        # A database that PgBouncer has open cannot be copied, so it is created without it.
        port = through("").split(":")[-1].strip("/")
        fixtures = copy / "tests/conftest.py"
        direct = "yield url.render_as_string(hide_password=False)"
        assert direct in fixtures.read_text()
        pooled = direct.replace("url.", f"url.set(port={port}).")
        fixtures.write_text(fixtures.read_text().replace(direct, pooled))

        # Both cores are free, and the project's tests have no plugins by themselves.
        every_core = ("-p", "xdist.plugin", "--numprocesses", "auto")
        said = Project(copy, {}).succeed(
            "pytest", "-q", *every_core, TEST_DATABASE_URL=postgres.url()
        )

    assert " passed" in said


def test_commands_work_through_a_pooler_again_and_again(
    folder: Path, postgres: Postgres, database: str
) -> None:
    project = Project(folder, {})
    with pooler(postgres, pool_size=1) as through:
        place = through(database)
        for target in ("target_1", "target_2"):
            query(postgres.url(), f"CREATE DATABASE {target}")
            project.succeed("alembic", "-x", f"url={through(target)}", "upgrade", "head")
            project.succeed("app", "db", "copy-to", through(target), DATABASE_URL=place)
        project.succeed("app", "user", "list", DATABASE_URL=place)
        project.succeed("alembic", "check", DATABASE_URL=place)
        project.succeed("alembic", "downgrade", "base", DATABASE_URL=place)


def test_many_log_in_read_and_write_at_once_through_four_connections(
    machine: Machine, folder: Path, postgres: Postgres, database: str, report: Report
) -> None:
    statuses: list[int] = []

    def work(server: Server, headers: dict[str, str], client: int) -> None:
        for turn in range(2):
            name = f"user-{client}-{turn}"
            statuses.append(create_user(server, name, headers))
            own = log_in(server, name, address=client * 2 + turn)
            for _ in range(4):
                statuses.append(server.get("/api/v1/users/me", **own).status)
                statuses.append(server.get("/api/v1/users", **headers).status)
            statuses.append(server.post("/api/v1/auth/logout", {}, own).status)
            statuses.append(server.get("/api/v1/users/me", **own).status)

    command = [*SERVE, "--workers", "2"]
    with pooler(postgres, pool_size=4) as through:
        place = {"DATABASE_URL": through(database), "TRUSTED_PROXIES": "127.0.0.1"}
        with Server(machine, command, folder, **place, LOG_LEVEL="ERROR") as server:
            headers = log_in(server, address=250)
            started = time.monotonic()
            with ThreadPoolExecutor(8) as clients:
                list(clients.map(partial(work, server, headers), range(8)))
            took = time.monotonic() - started
            processes = query(
                postgres.url(), f"SELECT 1 FROM pg_stat_activity WHERE datname = '{database}'"
            )

    counts = {status: statuses.count(status) for status in set(statuses)}
    report(f"through PgBouncer: {len(statuses)} requests in {took:.1f} s, {counts}")
    assert counts == {201: 16, 200: 16 * 8, 204: 16, 401: 16}, server.output[-2000:]
    assert len(processes) <= 4


def test_a_locked_row_is_waited_for_as_briefly_through_a_pooler(
    machine: Machine, folder: Path, postgres: Postgres, database: str
) -> None:
    with (
        pooler(postgres) as through,
        Server(machine, SERVE, folder, DATABASE_URL=through(database)) as server,
        psycopg.connect(postgres.url(database)) as outside,
    ):
        assert server.post("/locked", {}).status == 200
        outside.execute("SELECT * FROM permissions WHERE id = 1 FOR UPDATE")
        started = time.monotonic()
        assert server.post("/locked", {}).status == 503
        assert 4 < time.monotonic() - started < 20
        outside.rollback()
        assert server.post("/locked", {}).status == 200


def test_reads_go_to_the_standby_and_see_every_write_before_them(
    machine: Machine, folder: Path, postgres: Postgres, database: str, report: Report
) -> None:
    with standby(postgres) as replica:
        urls = {
            "DATABASE_URL": postgres.url(database),
            "DATABASE_REPLICA_URL": replica.url(database),
        }
        with Server(machine, SERVE, folder, **urls) as server:
            headers = log_in(server)
            reads = []
            for number in range(20):
                assert create_user(server, f"user-{number}", headers) == 201
                is_standby, users = server.get("/report", **headers).json()
                assert users == number + 2
                reads.append(is_standby)
            report(f"reads right after a write: {sum(reads)} of {len(reads)} on the standby")
            assert sum(reads) > len(reads) / 2

            # A standby that falls behind is not asked. Who may ask is always known exactly.
            query(replica.url(), "SELECT pg_wal_replay_pause()")
            other = log_in(server)
            assert create_user(server, "late", headers) == 201
            assert server.get("/report", **other).json() == [False, 22]
            assert server.send("DELETE", "/api/v1/auth/sessions", None, headers).status == 204
            assert server.get("/report", **other).status == 401
            query(replica.url(), "SELECT pg_wal_replay_resume()")

            wait_until(lambda: server.get("/report", **headers).json() == [True, 22])
            assert server.post("/report", {}).json() is False
            assert server.get("/bug").status == 500


def test_reads_go_to_the_primary_while_the_standby_is_down(
    machine: Machine, folder: Path, postgres: Postgres, database: str, report: Report
) -> None:
    with standby(postgres) as replica:
        urls = {
            "DATABASE_URL": postgres.url(database),
            "DATABASE_REPLICA_URL": replica.url(database).replace("postgres@", "postgres:pa55@"),
        }
        with Server(machine, SERVE, folder, **urls, ENVIRONMENT="development") as server:
            headers = log_in(server)
            assert server.get("/report", **headers).json() == [True, 1]

            def look() -> float:
                started = time.monotonic()
                assert server.get("/report", **headers).json() == [False, 1]
                return time.monotonic() - started

            replica.stop()
            stopped = max(look() for _ in range(5))
            assert server.get("/health/ready").status == 200
            replica.start()
            wait_until(lambda: server.get("/report", **headers).json()[0])

    report(f"standby stopped: a read takes at most {stopped:.2f} s")
    assert stopped < 5
    assert server.output.count("Reading from the primary") == 1, server.output
    assert server.output.count("Reading from the standby again") == 1
    assert "pa55" not in server.output


def test_the_app_follows_a_fail_over_and_loses_no_acknowledged_write(
    machine: Machine, folder: Path, migrated: str, postgres: Postgres, report: Report
) -> None:
    written: list[tuple[float, int]] = []
    failed: list[float] = []
    stop = threading.Event()

    def write(server: Server, client: int) -> None:
        number = client * 1_000_000
        while not stop.is_set():
            number += 1
            try:
                status = server.post(f"/rows/{number}", {}).status
            except OSError:
                status = 0
            if status == 200:
                written.append((time.monotonic(), number))
            else:
                failed.append(time.monotonic())
                assert status == 503
                time.sleep(0.1)

    with running() as primary, standby_of_copy(primary, postgres, migrated) as replica:
        query(primary.url(), "ALTER SYSTEM SET synchronous_standby_names = '*'")
        query(primary.url(), "SELECT pg_reload_conf()")
        hosts = f"host=127.0.0.1:{primary.port}&host=127.0.0.1:{replica.port}"
        url = f"postgresql://postgres@/{migrated}?{hosts}&target_session_attrs=read-write"
        environment = {"DATABASE_URL": url, "LOG_LEVEL": "ERROR"}
        with (
            Server(machine, SERVE, folder, **environment) as server,
            ThreadPoolExecutor(4) as clients,
        ):
            running_clients = [clients.submit(write, server, client) for client in range(4)]
            time.sleep(2)
            primary.stop()
            died = time.monotonic()
            time.sleep(1)
            replica.promote()
            promoted = time.monotonic()
            wait_until(lambda: bool(written) and written[-1][0] > promoted + 1)
            stop.set()
            for client in running_clients:
                client.result()
        found = query(replica.url(migrated), "SELECT name FROM permissions")

    back = min(at for at, _ in written if at > died + 0.5)
    report(
        f"fail-over: {len(written)} writes, {len(failed)} answered with 503; writable again "
        f"{back - promoted:.2f} s after the promotion, {max(failed) - promoted:.2f} s to the last 503"
    )
    lost = {f"row {number}" for _, number in written} - {str(name) for (name,) in found}
    assert not lost
    assert back - promoted < 10


@contextmanager
def standby_of_copy(primary: Postgres, source: Postgres, name: str) -> Iterator[Postgres]:
    """A standby of a new primary, to which this database is copied."""
    query(primary.url(), f"CREATE DATABASE {name}")
    dump = subprocess.run([program("pg_dump"), source.url(name)], check=True, capture_output=True)
    restore = [program("psql"), "-q", primary.url(name)]
    subprocess.run(restore, input=dump.stdout, check=True, capture_output=True)
    with standby(primary) as replica:
        yield replica


def test_a_login_session_and_the_throttle_hold_on_every_host(
    machine: Machine, folder: Path, postgres: Postgres, database: str
) -> None:
    place = {"DATABASE_URL": postgres.url(database), "TRUSTED_PROXIES": "127.0.0.1"}
    with (
        pooler(postgres) as through,
        Server(machine, SERVE, folder, **{**place, "DATABASE_URL": through(database)}) as one,
        Server(machine, SERVE, folder, **place) as two,
        balancer([one.port, two.port]) as port,
    ):
        both = Entrance(port)
        wait_until(lambda: both.get("/health/ready").status == 200)
        headers = log_in(one)
        assert [both.get("/api/v1/users/me", **headers).status for _ in range(6)] == [200] * 6
        assert two.post("/api/v1/auth/logout", {}, headers).status == 204
        assert [both.get("/api/v1/users/me", **headers).status for _ in range(6)] == [401] * 6

        statuses = [both.log_in("ada", f"wrong {n}").status for n in range(8)]
        assert statuses.index(429) == 5
        assert {one.log_in("ada", "w").status, two.log_in("ada", "w").status} == {429}

        # The balancer leaves out a host that is not ready.
        two.stop(signal.SIGKILL)
        wait_until(lambda: {both.get("/health/live").status for _ in range(6)} == {200})


class Entrance(Server):
    """The port of a load balancer."""

    def __init__(self, port: int) -> None:
        self.port = port
