"""Metrics and traces as a collector receives them from a served project with two workers."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import Migrated
from tests.render.test_project_documents import code_blocks
from tests.support.collector import Collector, attributes_of
from tests.support.machines import Machine, base_python
from tests.support.postgres import running
from tests.support.projects import ROOT, Generate, Project, clean_environment
from tests.support.servers import Server, free_port

pytestmark = pytest.mark.slow

Report = Callable[[str], None]

PASSWORD = "seven wet otters on a raft"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "baggage": "secret=secret-baggage"}
PRODUCTION = {"ENVIRONMENT": "production", "ALLOWED_HOSTS": "127.0.0.1,api.example.com"}

# Routes that handle secrets, and one that keeps the write lock.
PROBE = """
import asyncio

from opentelemetry import metrics
from sqlalchemy import text

from app.api.deps import SessionDep
from app.main import create_app

app = create_app()
orders = metrics.get_meter("shop").create_counter("shop.orders")


@app.get("/search")
async def search(q: str, session: SessionDep) -> int:
    orders.add(1)
    await session.execute(text("SELECT :value"), {"value": q})
    await session.execute(text("SELECT 'secret-literal'"))
    return 1


@app.get("/fail")
async def fail(session: SessionDep) -> int:
    await session.execute(text("SELECT name FROM nowhere WHERE name = :v"), {"v": "secret-value"})
    return 1


@app.get("/crash")
async def crash() -> int:
    raise RuntimeError("secret-exception")


@app.post("/slow/{seconds}")
async def write_slowly(seconds: float, session: SessionDep) -> int:
    await session.execute(text("UPDATE permissions SET description = 'a' WHERE id = 1"))
    await asyncio.sleep(seconds)
    return 1
"""


@pytest.fixture(scope="module")
def with_admin(
    generate: Generate, migrated_once: Migrated, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("watched") / "project"
    shutil.copytree(migrated_once(generate(auth=True)), folder)
    create = ("app", "user", "create-admin", "ada", "ada@example.com")
    Project(folder, {}).succeed(*create, stdin=f"{PASSWORD}\n")
    (folder / "probe.py").write_text(PROBE)
    return folder


class Watched(NamedTuple):
    server: Server
    collector: Collector
    token: str


def serve(machine: Machine, folder: Path, url: str, **environment: str) -> Server:
    command = [sys.executable, "-m", "uvicorn", "probe:app", "--no-proxy-headers", "--workers", "2"]
    fast = {"OTEL_METRIC_EXPORT_INTERVAL": "500", "OTEL_BSP_SCHEDULE_DELAY": "200"}
    export = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **fast} if url else {}
    return Server(machine, command, folder, **PRODUCTION, **export, **environment)


def log_lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.lines if line.startswith("{")]


@pytest.fixture(scope="module")
def watched(with_admin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A server after every kind of request, some with a secret, and what it has exported."""
    machine = Machine(tmp_path_factory.mktemp("home") / "home", {"python3": base_python()})
    with Collector() as collector:
        with serve(machine, with_admin, collector.url, TRUSTED_PROXIES="127.0.0.1") as server:
            token = server.log_in("ada", PASSWORD).json()["access_token"]
            bearer = {"Authorization": f"Bearer {token}"}
            for path in ("/api/v1/users/me", "/api/v1/users/1", "/search?q=secret-query&sig=1"):
                assert server.send("GET", path, None, {**bearer, **TRACEPARENT}).status == 200
            assert server.get("/fail").status == server.get("/crash").status == 500
            for n in range(40):
                assert server.get(f"/missing/{n}").status == 404
            for n in range(7):
                server.log_in("ada", f"secret-wrong-password-{n}")
            with ThreadPoolExecutor(4) as clients:
                list(clients.map(lambda _: server.post("/slow/0.5", None), range(4)))
            collector.wait_for(lambda: len(collector.instances) == 2)
        yield Watched(server, collector, token)


def test_requests_are_measured_by_route_and_status(watched: Watched) -> None:
    points = watched.collector.points("http.server.request.duration")
    seen = {(a.get("http.route"), a["http.response.status_code"]) for a, _ in points}

    assert ("/api/v1/users/{user_id}", 200) in seen
    assert ("/crash", 500) in seen
    assert ("/api/v1/auth/login", 401) in seen
    # Throttled logins.
    assert ("/api/v1/auth/login", 429) in seen
    names = {span.name for span in watched.collector.spans}
    assert {"GET /api/v1/users/{user_id}", "POST /api/v1/auth/login", "SELECT"} <= names


def test_unknown_paths_share_one_figure(watched: Watched) -> None:
    points = watched.collector.points("http.server.request.duration")
    missing = {tuple(sorted(a.items())) for a, _ in points if a["http.response.status_code"] == 404}

    assert len(missing) == 1
    assert "http.route" not in dict(missing.pop())


def test_w5_what_the_document_says_to_watch_is_exported(watched: Watched) -> None:
    document = (ROOT / "template/docs/operating.md.jinja").read_text("utf-8")
    section = document.partition("## Metrics and alerts")[2].partition("\n## ")[0]
    named = set(re.findall(r"`((?:db|http|password|sqlite)\.[a-z_.]+)`", section))
    attributes = {key for name in named for a, _ in watched.collector.points(name) for key in a}
    metrics = {name for name in named if name not in attributes}

    assert len(metrics) >= 8
    assert metrics <= watched.collector.metric_names


def test_figures_of_the_owner_are_exported_too(watched: Watched) -> None:
    assert sum(point.as_int for _, point in watched.collector.points("shop.orders")[-1:]) == 1


def test_queues_have_a_length_and_a_wait(watched: Watched) -> None:
    collector = watched.collector
    pools = "db.client.connection"
    for queue in (pools, "sqlite.lock", "password.hashing"):
        assert any(point.count > 0 for _, point in collector.points(f"{queue}.wait_time")), queue
        # At the end, no request waits any more.
        assert all(point.as_int >= 0 for _, point in collector.points(f"{queue}.pending_requests"))
    assert {a[f"{pools}.pool.name"] for a, _ in collector.points(f"{pools}.count")} == {
        "reading",
        "writing",
    }
    # Four requests that keep the lock for half a second each.
    assert max(point.max for _, point in collector.points(f"{pools}.wait_time")) > 0.4


def test_w3_no_secret_is_exported(watched: Watched) -> None:
    text = watched.collector.text
    statements = [
        value
        for span in watched.collector.spans
        for key, value in attributes_of(span).items()
        if key == "db.query.text"
    ]

    assert "secret" not in text
    assert PASSWORD not in text
    assert watched.token not in text
    assert "ada@example.com" not in text
    assert "Authorization" not in text
    assert "SELECT ?" in statements


def test_w3_no_secret_is_exported_from_postgresql(machine: Machine, with_admin: Path) -> None:
    with running() as postgres, Collector() as collector:
        Project(with_admin, {}).succeed("alembic", "upgrade", "head", DATABASE_URL=postgres.url())
        with serve(machine, with_admin, collector.url, DATABASE_URL=postgres.url()) as server:
            assert server.get("/search?q=secret-query").status == 200
            assert server.get("/fail").status == 500

    statements = collector.points("db.client.operation.duration")
    pools = collector.points("db.client.connection.count")
    assert {a["db.system.name"] for a, _ in statements} == {"postgresql"}
    assert "UndefinedTable" in {a.get("error.type") for a, _ in statements}
    assert {a["db.client.connection.pool.name"] for a, _ in pools} == {"all"}
    assert "secret" not in collector.text


def test_each_worker_exports_by_itself(watched: Watched) -> None:
    assert len(watched.collector.instances) == 2
    assert len(watched.collector.services) == 1


def test_a_trace_of_a_trusted_proxy_continues_and_its_id_is_in_the_log(watched: Watched) -> None:
    ours = [s for s in watched.collector.spans if s.trace_id.hex() == TRACE]
    root = next(s for s in ours if s.name == "GET /api/v1/users/{user_id}")
    statements = [s for s in ours if s.parent_span_id == root.span_id]

    assert root.parent_span_id.hex() == PARENT
    assert statements
    lines = log_lines(watched.server)
    assert {line["message"] for line in lines if line.get("trace_id") == TRACE} == {
        "GET /api/v1/users/me",
        "GET /api/v1/users/1",
        "GET /search",
    }
    crash = next(line for line in lines if "secret-exception" in line.get("exception", ""))
    assert len(crash["trace_id"]) == 32


def test_w4_other_clients_cannot_choose_the_trace(machine: Machine, with_admin: Path) -> None:
    with Collector() as collector:
        with serve(machine, with_admin, collector.url) as server:
            assert server.send("GET", "/health/live", None, TRACEPARENT).status == 200
        roots = [s for s in collector.spans if s.name == "GET /health/live"]

    assert roots
    assert all(not s.parent_span_id and s.trace_id.hex() != TRACE for s in roots)


@pytest.mark.alone
def test_w2_a_collector_that_is_silent_or_gone_slows_nothing(
    machine: Machine, with_admin: Path, report: Report
) -> None:
    def p99(url: str) -> tuple[float, float, Server]:
        with serve(machine, with_admin, url) as server:
            seconds = []
            deadline = time.monotonic() + 6
            while time.monotonic() < deadline:
                started = time.perf_counter()
                assert server.get("/health/ready").status == 200
                seconds.append(time.perf_counter() - started)
            stopped = time.monotonic()
            server.stop(signal.SIGTERM)
            return sorted(seconds)[int(len(seconds) * 0.99)], time.monotonic() - stopped, server

    with Collector() as working, Collector(silent=True) as silent:
        usual, _, _ = p99(working.url)
        slowest, stop, server = p99(silent.url)
    refused, stop_refused, without = p99(f"http://127.0.0.1:{free_port()}")

    report(
        f"p99 of /health/ready: {usual * 1000:.0f} ms, with a silent collector "
        f"{slowest * 1000:.0f} ms, with none {refused * 1000:.0f} ms; "
        f"it stops in {stop:.1f} s and {stop_refused:.1f} s"
    )
    assert max(slowest, refused) < max(3 * usual, 0.1)
    assert max(stop, stop_refused) < 10
    errors = [line for line in log_lines(without) if line["logger"].startswith("opentelemetry.")]
    # Of two workers: one for each exporter, and one for the queue between.
    assert 1 <= len(errors) <= 6
    assert "Traceback" not in server.output


def test_w1_without_the_variables_it_costs_nothing(
    generate: Generate, migrated_once: Migrated
) -> None:
    folder = migrated_once(generate(auth=True))
    probe = """
import asyncio, sys
from app.core.telemetry import _queues
from app.main import app

async def run():
    async with app.router.lifespan_context(app):
        for engine in app.state.database.engines.values():
            assert not engine.dispatch.before_cursor_execute
            assert "connect" not in vars(engine.pool)
        assert not app._native_telemetry.enabled()

asyncio.run(run())
loaded = [n for n in sys.modules if n.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
print(loaded, _queues)
"""
    output = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert output.stdout == "[] {}\n", output.stderr


def test_a_missing_extra_is_one_sentence(
    machine: Machine, with_admin: Path, tmp_path: Path
) -> None:
    # An environment without the extra: its libraries cannot be imported.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['opentelemetry.exporter'] = None\n"
    )
    sentence = 'are missing: pip install ".[telemetry]"'
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": str(tmp_path)}
    with serve(machine, with_admin, "", **variables) as server:
        assert server.get("/health/ready").status == 200
    check = Project(with_admin, {}).run("app", "check", **variables)

    assert sum(sentence in line["message"] for line in log_lines(server)) == 2, server.output
    assert "Traceback" not in server.output
    assert check.returncode == 1
    assert check.stdout.count(sentence) == 1


SENTRY = """
from fastapi.testclient import TestClient

from app.main import app


@app.get("/crash")
async def crash(token: str) -> int:
    copied = token
    raise RuntimeError(f"broken after {len(copied)} characters")


client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
# Not written here: Sentry quotes the lines around the error.
secret = os.environ["PLANTED"]
bearer = {"Authorization": f"Bearer {secret}"}
print(client.get(f"/crash?token={secret}", headers=bearer).headers["x-request-id"])
client.get(f"/missing?token={secret}")
sentry_sdk.flush(10)
"""


def test_the_recipe_for_sentry_reports_an_error_once_and_no_secret(
    generate: Generate, migrated_once: Migrated, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(migrated_once(generate(auth=True)), tmp_path / "project"))
    document = (folder / "docs/developing.md").read_text("utf-8")
    recipe = next(b for b in code_blocks(document) if b.startswith("sentry_sdk.init("))
    imports = "import os\n\nimport sentry_sdk\n\nfrom app.core.logging import request_id\n\n"
    (folder / "crash.py").write_text(imports + recipe + SENTRY)

    with Collector() as collector:
        dsn = collector.url.replace("://", "://key@") + "/1"
        output = Project(folder, {}).succeed("crash", SENTRY_DSN=dsn, PLANTED="secret-token")

    events = [body for body in collector.bodies if b'"exception"' in body]
    assert len(collector.bodies) == len(events) == 1
    assert (
        b'"request_id":"' + re.findall(r"^([0-9a-f]{32})$", output, re.M)[0].encode() in events[0]
    )
    assert b"broken after 12 characters" in events[0]
    assert b"secret-token" not in events[0]
