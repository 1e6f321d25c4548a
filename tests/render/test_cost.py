"""What a request costs, as far as it can be counted: time is for the benchmarks."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.databases import fill
from tests.support.projects import ROOT, Generate, Project, clean_environment

USERS = 300
# What serves no request: each costs every start, and every worker memory.
NOT_FOR_SERVING = {
    "alembic",
    "copier",
    "dns",
    "httpx2",
    "jinja2",
    "mako",
    "pytest",
    "rich",
    "typer",
    "yaml",
}


@pytest.fixture(scope="module")
def counts(generate: Generate, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("cost")
    project = Path(shutil.copytree(generate().path, folder / "project"))
    database = fill(project, USERS)
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.counting", project, database, str(USERS)],
        cwd=ROOT,
        env={**clean_environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize(
    ("scenario", "statements", "turns"),
    [
        ("no database", 0, 0),
        # The login session, and the user with the permissions: short reads, on the event loop.
        ("me", 2, 0),
        ("user", 2, 0),
        # The login session, the users, their permissions.
        ("list", 3, 0),
        ("last page", 3, 0),
        # The login session; the same again, under the lock; the row; its event in the audit trail.
        # The row, whose triggers keep the index of the search, takes a turn of a thread, and so does
        # the commit.
        ("create", 4, 2),
    ],
)
def test_a_request_sends_no_more_statements_than_it_needs(
    counts: Any, scenario: str, statements: int, turns: int
) -> None:
    assert len(counts[scenario]["plans"]) == statements
    assert len(counts[scenario]["turns"]) == turns, counts[scenario]["turns"]


@pytest.mark.parametrize("scenario", ["me", "user", "list", "last page", "create"])
def test_no_statement_reads_a_whole_table_or_sorts(counts: Any, scenario: str) -> None:
    for statement, plan in counts[scenario]["plans"].items():
        # `selectinload` sorts the permissions of one page of users: bounded by the page, and by the
        # permissions that the code declares.
        if "ORDER BY permissions.name" in statement:
            continue
        tables = r"\b(users|sessions|permissions|user_permissions)\b"
        slow = [step for step in plan if "TEMP B-TREE" in step or re.match(rf"SCAN {tables}", step)]
        assert slow == [], (statement, plan)


def test_a_project_is_few_files(project: Project) -> None:
    """Each costs time at every copy, and three times that at every update."""
    answers = project.answers
    most = 102 + 57 * answers["auth"] + 3 * answers["github"] + 4 * answers["docker"]
    most += answers["github"] and answers["docker"]

    assert len(project.files()) <= most


def test_the_server_imports_nothing_that_it_does_not_serve_with(project: Project) -> None:
    code = "import sys, app.main; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert NOT_FOR_SERVING & set(run.stdout.split()) == set()
