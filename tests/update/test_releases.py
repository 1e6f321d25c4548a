"""From every release to today's template: no work is lost, and the result is sound."""

import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from plumbum import local

from post_update import version as numbers_of
from tests.support.projects import Project, clean_environment
from tests.update.conftest import Start, Update
from tests.update.edits import (
    commit,
    fill,
    git,
    is_kept,
    live_with,
    name_open_routes,
    owners_lines,
    rows,
    schema,
)
from tools.releases import releases

pytestmark = pytest.mark.slow

HEAD = "v1000.0.0"
VERSIONS = [f"v{version}" for version in releases()]
Report = Callable[[str], None]


def is_merged(project: Project, owned: dict[str, set[str]]) -> None:
    """No conflict, and every line of the owner's is where it was, or moved along."""
    assert git(project.path, "ls-files", "--unmerged") == ""
    assert list(project.path.rglob("*.rej")) == []
    for file, lines in owned.items():
        assert not project.has(file) or "<<<<<<<" not in project.read(file), file
        assert [line for line in lines if not is_kept(project, file, line)] == [], file
    assert not project.has("setup.bat")
    assert not project.has("app/api/v1/home_router.py")


def is_one_line(project: Project) -> None:
    """One head, and no revision that two others follow."""
    assert len(project.succeed("alembic", "heads").strip().splitlines()[-1:]) == 1
    history = [
        line for line in project.succeed("alembic", "history").splitlines() if " -> " in line
    ]
    parents = [line.split(" -> ")[0] for line in history]
    assert len(set(parents)) == len(parents) == len(list(versions(project)))
    assert not any("branchpoint" in line or "mergepoint" in line for line in history)


def versions(project: Project) -> dict[str, bytes]:
    return {
        file.name: file.read_bytes() for file in (project.path / "alembic/versions").glob("*.py")
    }


def migrates_alike(project: Project, tmp_path: Path) -> None:
    """The database that was lived with and a fresh one end up with the same schema."""
    fresh = tmp_path / "fresh.db"
    project.succeed("alembic", "-x", f"url=sqlite:///{fresh}", "upgrade", "head")
    assert schema(project.path / "app.db") == schema(fresh)
    before = rows(project)
    project.succeed("alembic", "downgrade", "-1")
    project.succeed("alembic", "upgrade", "head")
    assert rows(project) == before
    assert schema(project.path / "app.db") == schema(fresh)


def setting(project: Project, name: str) -> str:
    show = f"from app.settings import load_settings; print(load_settings().{name})"
    return subprocess.check_output(
        [sys.executable, "-c", show], cwd=project.path, env=clean_environment(), text=True
    ).strip()


def kept_files(project: Project) -> dict[str, str]:
    """What git would keep of a project, but for the README, which no update touches."""
    names = git(project.path, "ls-files", "--cached", "--others", "--exclude-standard").split()
    return {n: project.read(n) for n in names if n != "README.md" and project.has(n)}


def is_clean(project: Project) -> None:
    for command in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        project.succeed(*command)


@pytest.mark.parametrize(
    ("version", "answers"),
    [(v, {}) for v in VERSIONS] + [(v, {"auth": True}) for v in VERSIONS if numbers_of(v) < (0, 3)],
    ids=str,
)
def test_a_project_that_was_lived_with_is_updated(
    start: Start,
    update: Update,
    tmp_path: Path,
    version: str,
    answers: dict[str, bool],
    report: Report,
) -> None:
    project = start(version)
    had_log_in = project.has("app/permissions.py")
    live_with(project)
    fill(project)
    (project.path / ".env").write_text("SHELF=oak\n# mine\n")
    kept = rows(project)
    committed, owned = versions(project), owners_lines(project)

    trace = tmp_path / "trace"
    trace.mkdir()
    started = time.perf_counter()
    with local.env(GIT_TRACE2_EVENT=str(trace)):
        update(project, HEAD, **answers)
    seconds, calls = time.perf_counter() - started, len(list(trace.iterdir()))
    report(f"copier update {version} to head: {seconds:.1f} s, {calls} processes of git")

    is_merged(project, owned)
    assert project.has("app/auth/service.py") == (had_log_in or "auth" in answers)
    assert {name: text for name, text in versions(project).items() if name in committed} == (
        committed
    )
    is_one_line(project)
    project.succeed("alembic", "upgrade", "head")
    assert rows(project) == kept
    migrates_alike(project, tmp_path)
    assert (project.path / ".env").read_text() == "SHELF=oak\n# mine\n"
    (project.path / ".env").unlink()
    if project.has("app/auth"):
        # The table is there, and the update tells no one anything.
        assert project.succeed("app", "mail", "list") == ""
        assert setting(project, "registration") == "closed"
    is_clean(project)
    commit(project, "Update")
    update(project, HEAD)
    assert git(project.path, "status", "--porcelain") == ""
    if answers and not had_log_in:
        # As the changelog says: the test of the guards asks for a word on each route.
        name_open_routes(project)
    assert "passed" in project.succeed("pytest", "-q")


@pytest.mark.parametrize(("before", "after"), list(itertools.pairwise(VERSIONS)))
def test_release_by_release_it_ends_where_one_leap_ends(
    start: Start, update: Update, tmp_path: Path, before: str, after: str
) -> None:
    """What only the template wrote is the same, whichever way it came."""
    project = start(before)
    live_with(project)
    fill(project)
    kept, owned = rows(project), owners_lines(project)
    shutil.copytree(project.path, tmp_path / "leap")
    leap = Project(tmp_path / "leap", {})

    for version in (after, HEAD):
        update(project, version)
        is_merged(project, owned)
        is_one_line(project)
        project.succeed("alembic", "upgrade", "head")
        assert rows(project) == kept
        commit(project, "Step")
    update(leap, HEAD)

    assert kept_files(project) == kept_files(leap)
