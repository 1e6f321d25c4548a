"""A project on PostgreSQL: all tests, the move from SQLite, and a restarting server."""

import json
import os
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.render.test_project_documents import code_blocks
from tests.support.internals import add_internal_tests, in_parts
from tests.support.machines import Machine
from tests.support.postgres import Postgres, running
from tests.support.projects import Generate, Project
from tests.support.revisions import head
from tests.support.servers import Server

Report = Callable[[str], None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Debian's PostgreSQL"),
]

UVICORN = [sys.executable, "-m", "uvicorn", "probe:app", "--log-level", "warning"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


@pytest.fixture
def url(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    """A new, empty database."""
    name = f"db_{abs(hash(request.node.name))}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return postgres.url(name)


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchall()


def test_all_tests_pass_on_postgresql(project: Project, postgres: Postgres, tmp_path: Path) -> None:
    copy = Project(tmp_path / "project", project.answers)
    shutil.copytree(project.path, copy.path)
    # Without the login, the machinery is the same, and is tested on SQLite.
    folders = add_internal_tests(copy) if project.answers["auth"] else []
    for arguments in in_parts(copy, folders):
        said = copy.succeed("pytest", "-q", *arguments, TEST_DATABASE_URL=postgres.url())
        assert " passed" in said


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_migrations_go_up_and_down_with_rows(probed: Path, url: str, scheme: str) -> None:
    project = Project(probed, {})
    place = {"DATABASE_URL": url.replace("postgresql", scheme, 1)}
    project.succeed("alembic", "upgrade", "head", **place)
    query_none(url, "INSERT INTO users VALUES (1, 'ada', 'ada@example.com', 'hash', true)")

    assert f"{head(probed)} (head)" in project.succeed("alembic", "current", **place)
    project.succeed("alembic", "check", **place)
    project.succeed("alembic", "downgrade", "base", **place)
    project.succeed("app", "db", "upgrade", **place)
    project.succeed("app", "check", **place)
    assert "BIGINT" in project.succeed("alembic", "upgrade", "head", "--sql", **place)
    assert query(
        url, "SELECT data_type FROM information_schema.columns WHERE column_name = 'id'"
    ) == [
        ("bigint",),
        ("bigint",),
    ]


def test_a_role_that_may_not_create_an_extension_searches_without_an_index(
    generate: Generate, url: str
) -> None:
    project = generate(auth=True)
    query_none(url, "CREATE ROLE limited LOGIN; GRANT ALL ON SCHEMA public TO limited")
    place = {"DATABASE_URL": url.replace("postgres@", "limited@")}

    said = project.run("alembic", "upgrade", "head", **place).stderr

    assert "The search of users has no index and reads all rows: permission denied" in said
    project.succeed("alembic", "check", **place)
    project.succeed("app", "check", **place)


def test_the_app_runs_as_a_role_that_cannot_change_the_schema(generate: Generate, url: str) -> None:
    project = generate(auth=True)
    query_none(url, "CREATE ROLE owner LOGIN SUPERUSER; CREATE ROLE app LOGIN")
    project.succeed("alembic", "-x", f"url={url.replace('postgres@', 'owner@')}", "upgrade", "head")
    (grants,) = code_blocks(project.read("docs/operating.md"), "sql")
    query_none(url.replace("postgres@", "owner@"), grants)
    app = url.replace("postgres@", "app@")

    project.succeed("app", "check", DATABASE_URL=app)
    create = ("user", "create-admin", "ada", "ada@example.com")
    project.succeed("app", *create, stdin="seven wet otters on a raft\n", DATABASE_URL=app)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        query_none(app, "DELETE FROM alembic_compatible")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        query_none(app, "CREATE TABLE mine (id INTEGER)")
    query_none(url.replace("postgres@", "owner@"), "CREATE TABLE later (id SERIAL, name TEXT)")
    query_none(app, "INSERT INTO later (name) VALUES ('new')")
    newer = "UPDATE alembic_version SET version_num = 'f00'; INSERT INTO alembic_compatible VALUES"
    query_none(url, f"{newer} ('f00')")
    assert "ahead of this code, which works" in project.succeed("app", "check", DATABASE_URL=app)
    query_none(url, "REVOKE SELECT ON alembic_compatible FROM app")
    assert "permission denied" in project.run("app", "check", DATABASE_URL=app).stdout


def query_none(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement)


def test_three_upgrades_at_once_all_succeed(probed: Path, url: str) -> None:
    with ThreadPoolExecutor(3) as migrators:
        upgrade = ("alembic", "upgrade", "head")
        runs = [
            migrators.submit(Project(probed, {}).run, *upgrade, DATABASE_URL=url) for _ in "abc"
        ]

    assert [run.result().returncode for run in runs] == [0, 0, 0], runs[0].result().stderr
    assert sum("Running upgrade" in run.result().stderr for run in runs) == 1


def test_no_request_waits_forever_for_a_server_that_does_not_answer(
    machine: Machine, probed: Path, url: str, postgres: Postgres, report: Report
) -> None:
    Project(probed, {}).succeed("alembic", "upgrade", "head", DATABASE_URL=url)
    place = {"DATABASE_URL": url, "DATABASE_TIMEOUT_SECONDS": "5"}

    with Server(machine, UVICORN, probed, **place) as server:
        assert server.get("/rows").status == 200
        assert server.get("/health/ready").status == 200
        with postgres.paused():
            started_at = time.monotonic()
            assert server.get("/rows").status == 503
            rows = time.monotonic() - started_at
            started_at = time.monotonic()
            for _ in range(3):
                assert server.get("/health/ready").status == 503
            ready = (time.monotonic() - started_at) / 3
        assert server.get("/health/ready").status == 200
        assert server.get("/rows").status == 200

    report(f"while PostgreSQL is stopped: ready answers in {ready:.1f} s, a route in {rows:.1f} s")
    assert ready < 6
    assert rows < 30
    assert "Traceback" not in server.output


def test_a_whole_database_is_copied_from_sqlite(probed: Path, url: str) -> None:
    project = Project(probed, {})
    with closing(sqlite3.connect(probed / "app.db")) as connection, connection:
        users = [(n, f"user-{n}", f"ü{n}@example.com", "hash", n % 2) for n in range(1, 2502)]
        connection.executemany("INSERT INTO users VALUES (?, ?, ?, ?, ?)", users)
        connection.execute("INSERT INTO permissions VALUES (7, 'users:read', ''), (9, 'old', '')")
        connection.execute("DELETE FROM permissions WHERE name = 'old'")
        links = [(n, 7) for n in range(1, 2502, 3)]
        connection.executemany("INSERT INTO user_permissions VALUES (?, ?)", links)

    too_early = project.run("app", "db", "copy-to", url)
    assert too_early.returncode == 1
    assert "Traceback" not in too_early.stderr
    project.succeed("alembic", "-x", f"url={url}", "upgrade", "head")
    said = project.succeed("app", "db", "copy-to", url)

    assert f"{2501 + 1 + len(links)} rows in 3 tables" in said
    assert (
        query(url, "SELECT id, username, email, password, is_active::int FROM users ORDER BY id")
        == users
    )
    assert query(url, "SELECT user_id, permission_id FROM user_permissions ORDER BY 1") == links
    # The sequence continues after the copied ids, and after that of a deleted row.
    query_none(url, "INSERT INTO permissions (name, description) VALUES ('next', '')")
    assert query(url, "SELECT max(id) FROM permissions") == [(10,)]
    again = project.run("app", "db", "copy-to", url)
    assert again.returncode == 1
    assert "already has rows in" in again.stderr


def test_i14_ids_of_deleted_rows_stay_taken_on_the_way_to_postgresql_and_back(
    probed: Path, url: str
) -> None:
    project, back = Project(probed, {}), probed / "back.db"
    with closing(sqlite3.connect(probed / "app.db")) as connection, connection:
        connection.execute("INSERT INTO permissions VALUES (9, 'old', '')")
        connection.execute("DELETE FROM permissions")
    for target in (url, f"sqlite:///{back}"):
        project.succeed("alembic", "-x", f"url={target}", "upgrade", "head")

    project.succeed("app", "db", "copy-to", url)
    project.succeed("app", "db", "copy-to", f"sqlite:///{back}", DATABASE_URL=url)

    with closing(sqlite3.connect(back)) as connection:
        added = connection.execute("INSERT INTO permissions (name, description) VALUES ('new', '')")
        assert added.lastrowid == 10


def test_users_are_copied_with_passwords_sessions_and_permissions(
    machine: Machine, generate: Generate, url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "accounts"
    shutil.copytree(generate(auth=True).path, folder)
    project, password = Project(folder, {}), "seven wet otters on a raft"
    project.succeed("alembic", "upgrade", "head")
    project.succeed("app", "user", "create-admin", "ada", "a@example.com", stdin=f"{password}\n")
    command = [sys.executable, "-m", "uvicorn", "app.main:app"]
    with Server(machine, command, folder) as server:
        token = server.log_in("ada", password).json()["access_token"]

    # An upgrade has already added the declared permissions to the target.
    project.succeed("alembic", "-x", f"url={url}", "upgrade", "head")
    project.succeed("app", "db", "copy-to", url)

    with Server(machine, command, folder, DATABASE_URL=url) as server:
        header = {"Authorization": f"Bearer {token}"}
        assert server.get("/api/v1/users", **header).json()["items"][0]["username"] == "ada"
        assert server.log_in("a@example.com", password).status == 200


def test_transactions_see_the_rows_that_they_waited_for(
    probed: Path, postgres: Postgres, url: str
) -> None:
    """With snapshots, two administrators could remove each other: each would see old rows."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        name = url.rpartition("/")[2]
        connection.execute(
            f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'repeatable read'"
        )
    (probed / "look.py").write_text(LOOK)

    said = Project(probed, {}).succeed("look", DATABASE_URL=url)

    assert said == "read committed\n"
    assert query(url, "SHOW transaction_isolation") == [("repeatable read",)]


LOOK = """
import asyncio
from sqlalchemy import text
from app.core.database import Database
from app.settings import load_settings


async def look() -> None:
    async with Database(load_settings()) as database, database.writers.begin() as session:
        print(await session.scalar(text("SHOW transaction_isolation")))


asyncio.run(look())
"""


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/api/v1/auth/sessions", None),
        ("DELETE", "/api/v1/auth/sessions/{session}", None),
        ("DELETE", "/api/v1/users/{id}/sessions", None),
        ("DELETE", "/api/v1/users/{id}", None),
        ("PATCH", "/api/v1/users/{id}", {"username": "carl"}),
        ("PATCH", "/api/v1/users/me", {"username": "carl"}),
    ],
)
def test_a_change_of_a_user_waits_for_the_user_and_locks_nothing_that_a_login_needs(
    machine: Machine,
    generate: Generate,
    url: str,
    tmp_path: Path,
    method: str,
    path: str,
    body: dict[str, str] | None,
) -> None:
    """A login or a new password locks the user, then changes their sessions and counters."""
    folder = tmp_path / "accounts"
    shutil.copytree(generate(auth=True).path, folder)
    project, password = Project(folder, {}), "seven wet otters on a raft"
    project.succeed("alembic", "upgrade", "head", DATABASE_URL=url)
    for command in ("create-admin", "create"):
        name = {"create-admin": "ada", "create": "bob"}[command]
        account = ("app", "user", command, name, f"{name}@example.com")
        project.succeed(*account, stdin=f"{password}\n", DATABASE_URL=url)
    app = [sys.executable, "-m", "uvicorn", "app.main:app"]
    with Server(machine, app, folder, DATABASE_URL=url) as server, psycopg.connect(url) as outside:
        token = server.log_in("ada", password).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        assert server.log_in("bob", "not the password of bob").status == 401
        server.log_in("bob", password)
        # The caller, or another user.
        target = 2 if "{id}" in path else 1
        outside.execute("SET lock_timeout = '2s'")
        outside.execute("SELECT id FROM users WHERE id = %s FOR UPDATE", [target])
        with ThreadPoolExecutor(1) as person:
            place = path.format(id=target, session=1)
            data = json.dumps(body).encode() if body else None
            answer = person.submit(server.send, method, place, data, headers)
            wait_until_one_waits(url)
            outside.execute("DELETE FROM throttles")
            outside.execute("UPDATE sessions SET last_used_at = last_used_at")
            outside.commit()

    assert answer.result().status in {200, 204}, answer.result().body


def test_no_request_that_succeeds_rolls_back(
    machine: Machine, generate: Generate, url: str
) -> None:
    """psycopg forgets its prepared statements at each rollback of its connection."""
    project, password = generate(auth=True), "seven wet otters on a raft"
    project.succeed("alembic", "upgrade", "head", DATABASE_URL=url)
    account = ("app", "user", "create-admin", "ada", "ada@example.com")
    project.succeed(*account, stdin=f"{password}\n", DATABASE_URL=url)
    app = [sys.executable, "-m", "uvicorn", "app.main:app"]
    counted = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    wait_until_all_ended(url)
    before = query(url, counted)

    with Server(machine, app, project.path, DATABASE_URL=url) as server:
        token = server.log_in("ada", password).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        change = b'{"username": "carl"}'
        assert server.send("PATCH", "/api/v1/users/me", change, headers).status == 200
        new = {"current_password": password, "new_password": "nine dry owls on a roof"}
        assert server.post("/api/v1/auth/password", new, headers).status == 200
        assert server.get("/health/ready").status == 200
    # A connection reports its figures when it ends.
    wait_until_all_ended(url)

    assert query(url, counted) == before


def wait_until_all_ended(url: str) -> None:
    deadline = time.monotonic() + 10
    here = "datname = current_database() AND pid != pg_backend_pid()"
    while query(url, f"SELECT pid FROM pg_stat_activity WHERE {here}"):
        assert time.monotonic() < deadline, "a connection of the server stays open"
        time.sleep(0.05)


def wait_until_one_waits(url: str) -> None:
    deadline = time.monotonic() + 10
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while not query(url, waiting):
        assert time.monotonic() < deadline, "the change does not wait for the user"
        time.sleep(0.05)


NOTES = """
from datetime import datetime
from decimal import Decimal

from sqlalchemy import JSON, DateTime, Numeric
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base


class Note(Base):
    __tablename__ = "Notes"

    written: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    data: Mapped[dict[str, int]] = mapped_column(JSON)
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    alias: Mapped[str | None] = mapped_column("real_name")
"""


def test_tables_of_the_owner_are_copied_too(probed: Path, url: str) -> None:
    project = Project(probed, {})
    (probed / "app/models/note.py").write_text(NOTES)
    project.succeed("alembic", "revision", "-m", "notes", "--autogenerate")
    project.succeed("alembic", "upgrade", "head")
    project.succeed("alembic", "-x", f"url={url}", "upgrade", "head")
    with closing(sqlite3.connect(probed / "app.db")) as connection, connection:
        connection.execute(
            """INSERT INTO "Notes" (id, written, data, price, real_name)
            VALUES (1, '2026-07-01 12:00:00.000000', '{"b": 1, "a": 2}', 1.25, NULL)"""
        )

    project.succeed("app", "db", "copy-to", url, PGTZ="Asia/Tokyo")

    assert query(
        url,
        """SELECT written AT TIME ZONE 'UTC' = timestamp '2026-07-01 12:00', data->>'a',
        price::text, real_name FROM "Notes" """,
    ) == [(True, "2", "1.25", None)]


def test_a_table_without_a_model_is_not_skipped_silently(probed: Path, url: str) -> None:
    with closing(sqlite3.connect(probed / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE raw_notes (id INTEGER PRIMARY KEY)")
    Project(probed, {}).succeed("alembic", "-x", f"url={url}", "upgrade", "head")

    refused = Project(probed, {}).run("app", "db", "copy-to", url)

    assert refused.returncode == 1
    assert "These tables have no model: raw_notes." in refused.stderr


def test_x3_a_failed_migration_prints_no_values(probed: Path, url: str) -> None:
    project = Project(probed, {})
    project.succeed("alembic", "revision", "-m", "wrong")
    (file,) = (probed / "alembic/versions").glob("*_wrong.py")
    insert = "INSERT INTO permissions (name, description) VALUES (NULL, 'se' || 'cret')"
    migration = file.read_text().replace("pass", f"""op.execute("{insert}")""", 1)
    file.write_text(migration)

    failed = project.run("alembic", "-x", f"url={url}", "upgrade", "head")

    assert failed.returncode == 1
    assert "null value in column" in failed.stderr
    assert "secret" not in failed.stderr


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "char(115, 101, 99, 114, 101, 116, 0)",
            "The target rejects the row of permissions with id 2 (a NUL in name): ",
        ),
        (
            "printf('%.65c', 'x')",
            "The target rejects the row of permissions with id 2: StringDataRightTruncation.",
        ),
        ("NULL", "The target rejects the row of permissions with id 2: "),
        (
            "CAST(x'736563726574ff' AS TEXT)",
            "The row of permissions with id 2 cannot be read: Could not decode to UTF-8",
        ),
    ],
    ids=["NUL", "too long", "NULL", "no UTF-8"],
)
def test_i4_a_copy_names_the_row_that_the_target_rejects_and_not_its_values(
    probed: Path, url: str, name: str, reason: str
) -> None:
    """SQLite accepts what its schema forbids, if other programs write to it."""
    Project(probed, {}).succeed("alembic", "-x", f"url={url}", "upgrade", "head")
    with closing(sqlite3.connect(probed / "app.db")) as connection, connection:
        connection.executescript(
            f"""
            PRAGMA ignore_check_constraints = ON;
            PRAGMA writable_schema = ON;
            UPDATE sqlite_master SET sql = replace(sql, 'name VARCHAR(64) NOT NULL', 'name TEXT')
            WHERE name = 'permissions';
            PRAGMA writable_schema = RESET;
            INSERT INTO permissions (id, name, description) VALUES (1, 'first', 'secret');
            INSERT INTO permissions (id, name, description) VALUES (2, {name}, 'secret');
            """
        )

    refused = Project(probed, {}).run("app", "db", "copy-to", url)

    assert refused.returncode == 1
    assert reason in refused.stderr
    assert "secret" not in refused.stderr
    assert query(url, "SELECT count(*) FROM permissions") == [(0,)]


def test_a_copy_that_was_killed_can_be_repeated(probed: Path, url: str) -> None:
    project = Project(probed, {})
    with closing(sqlite3.connect(probed / "app.db")) as connection, connection:
        rows = ((n, f"name {n}", "") for n in range(1, 30_001))
        connection.executemany("INSERT INTO permissions VALUES (?, ?, ?)", rows)
    project.succeed("alembic", "-x", f"url={url}", "upgrade", "head")
    machine = Machine(probed / "home")
    for moment in (0.6, 0.8, 1.0, 1.2, 1.4, 1.6):
        process = machine.popen(sys.executable, "-m", "app", "db", "copy-to", url, cwd=probed)
        time.sleep(moment)
        process.kill()
        process.communicate()

    time.sleep(0.5)
    if query(url, "SELECT count(*) FROM permissions") == [(0,)]:
        project.succeed("app", "db", "copy-to", url)

    assert query(url, "SELECT count(*), max(id) FROM permissions") == [(30_000, 30_000)]


@pytest.mark.alone
def test_requests_fail_with_503_during_a_restart_of_the_server(
    machine: Machine, probed: Path, postgres: Postgres, url: str, report: Report
) -> None:
    Project(probed, {}).succeed("alembic", "-x", f"url={url}", "upgrade", "head")
    seen: list[tuple[float, int]] = []
    stop = threading.Event()

    def client(server: Server) -> None:
        while not stop.is_set():
            seen.append((time.monotonic(), server.get("/rows").status))

    with (
        Server(machine, UVICORN, probed, DATABASE_URL=url, LOG_LEVEL="ERROR") as server,
        ThreadPoolExecutor(4) as clients,
    ):
        for _ in range(4):
            clients.submit(client, server)
        time.sleep(0.5)
        postgres.restart()
        back = time.monotonic()
        time.sleep(5)
        stop.set()

    statuses = {status for _, status in seen}
    recovered = max((at for at, status in seen if status != 200), default=back) - back
    report(
        f"PostgreSQL restarted under load: {len(seen)} requests, {statuses}, "
        f"{recovered:.1f} s to recover"
    )
    assert statuses <= {200, 503}
    assert recovered < 5
