"""A product that calls the template's functions from its own code, updated from every release."""

import re

import pytest
from copier.errors import TaskError

from post_update import version as numbers_of
from tests.update.conftest import Start, Update
from tests.update.edits import commit, git, replace
from tests.update.library import make_library
from tools.releases import releases

pytestmark = pytest.mark.slow

HEAD = "v1000.0.0"
# The library is written as products were before projects could generate resources.
VERSIONS = [f"v{version}" for version in releases() if numbers_of(version) < (0, 7)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_product_of_every_release_still_works(
    start: Start, update: Update, version: str, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start(version)
    make_library(project, version)

    update(project, HEAD)

    said = capfd.readouterr().out
    assert git(project.path, "ls-files", "--unmerged") == ""
    assert version == "v0.1.0" or "app/api/pagination.py -> app/core/pagination.py" in said
    assert [line for line in said.splitlines() if re.search(r"\.py:\d", line)] == []
    # Longer names can make a line too long.
    project.succeed("ruff", "format")
    project.succeed("ruff", "check")
    if numbers_of(version) < (0, 3):
        # What was left to do was named with its line.
        assert 'app/cli.py:28: error: "Database" has no attribute "dispose"' in (
            project.run("mypy").stdout
        )
        replace(project, "app/cli.py", "        await database.dispose()\n", "")
        opened = "        database = Database(load_settings())\n        async with "
        closed = "        async with Database(load_settings()) as database, "
        replace(project, "app/cli.py", opened, closed)
    project.succeed("mypy")
    project.succeed("alembic", "upgrade", "head")
    assert "passed" in project.succeed("pytest", "-q")
    assert "test_the_shelf" in project.read("tests/test_api.py")
    commit(project, "Update")
    update(project, HEAD)
    assert git(project.path, "status", "--porcelain") == ""


def test_code_that_can_no_longer_work_is_named_and_the_database_is_not_touched(
    start: Start, update: Update, capfd: pytest.CaptureFixture[str]
) -> None:
    project = start("v0.6.0")
    make_library(project, "v0.6.0")
    with (project.path / "app/api/v1/titles_router.py").open("a") as router:
        router.write(
            "\n\nfrom app.security import new_token\n\n\n"
            '@router.get("/all", response_model=None)\n'
            "async def list_all(paging: PagingDep, session: SessionDep) -> Slice[Title]:\n"
            "    rows = await session.scalars(paging.of(Title))\n"
            "    print(rows)\n"
            "    return paging.slice(rows.all())\n\n\n"
            "print(new_token)\n"
        )
    commit(project, "Lists")

    with pytest.raises(TaskError):
        update(project, HEAD)

    said = capfd.readouterr().out
    assert "app.security.new_token: `create_login_session` from app.auth.sessions" in said
    assert "app.api.pagination.PagingDep: now app.core.pagination.PageDep, rewritten" in said
    assert "The database was not touched" in said
    assert "session: SessionDep) -> Page[Title]:" in project.read("app/api/v1/titles_router.py")


def test_a_product_without_login_keeps_its_pages(start: Start, update: Update) -> None:
    project = start("v0.2.0")
    git(project.path, "init", "--quiet")
    (project.path / "app/lists.py").write_text(
        "from app.api.pagination import Page\n\nprint(Page)\n"
    )
    commit(project, "Lists")

    update(project, HEAD)

    assert project.has("app/core/pagination.py")
    project.succeed("app", "--help")
    project.succeed("mypy")
    commit(project, "Update")
    update(project, HEAD)
    assert git(project.path, "status", "--porcelain") == ""
