"""Projects that Copier renders once per set of answers, through pytest-copier."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_copier.plugin import CopierFixture

from tests.support.machines import Machine, base_python
from tests.support.projects import ROOT, Generate, Project, combinations, describe, questions
from tests.support.rendering import hurried
from tests.update.edits import git
from tools.releases import tag

Migrated = Callable[[Project], Path]

# These run inside a generated project: see tests/support/internals.py.
collect_ignore = ["core", "auth_internals"]


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says a measured figure in the summary of the run, whether or not the test passes."""
    return partial(record_property, "figure")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    figures = [text for test in reports for name, text in test.user_properties if name == "figure"]
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.write_line(str(figure))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `project` is a claim about every combination of options.

    What runs a program leaves out `github` and `docker`: tests hold that they change no file of it.
    """
    if "project" in metafunc.fixturenames:
        every = combinations()
        if metafunc.definition.path.parent.name != "render":
            every = [answers for answers in every if answers["github"] and answers["docker"]]
        metafunc.parametrize("project", every, ids=describe, indirect=True, scope="session")


@pytest.fixture(scope="session")
def copier_template_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def copier_template_paths() -> list[str]:
    return ["template", "hooks", "tools", "copier.yml"]


@pytest.fixture(scope="session")
def render(copier_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generate]:
    """A new project with these answers."""
    with pytest.MonkeyPatch.context() as patch:
        copier = CopierFixture(copier_template, {}, patch)
        copier.setenv("COPIER_FASTAPI_SETUP", "skip")

        def copy(**answers: Any) -> Project:
            folder = tmp_path_factory.mktemp("rendered") / "project"
            with hurried():
                copier.copy(folder, **answers)
            return Project(folder, answers)

        yield copy


@pytest.fixture(scope="session")
def generate(render: Generate) -> Generate:
    """Render with these answers; equal answers share one project, which no test may change."""
    rendered: dict[str, Project] = {}
    # Options are on in a new project.
    options = dict.fromkeys((n for n, q in questions().items() if q["type"] == "bool"), True)

    def share(**answers: Any) -> Project:
        key = repr(sorted({**options, **answers}.items()))
        if key not in rendered:
            rendered[key] = render(**answers)
        return Project(rendered[key].path, answers)

    return share


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home", {"python3": base_python()})


@pytest.fixture(scope="session")
def migrated_once(tmp_path_factory: pytest.TempPathFactory) -> Migrated:
    """A migrated copy of a project, shared by all tests: copy it again before changing it."""
    copies: dict[Path, Path] = {}

    def migrate(project: Project) -> Path:
        if project.path not in copies:
            folder = tmp_path_factory.mktemp("migrated") / "project"
            shutil.copytree(project.path, folder)
            Project(folder, {}).succeed("alembic", "upgrade", "head")
            copies[project.path] = folder
        return copies[project.path]

    return migrate


@pytest.fixture(scope="session")
def project(request: pytest.FixtureRequest, generate: Generate) -> Project:
    return generate(**request.param)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this repository with its releases tagged, and the working tree as its head."""
    clone = tmp_path_factory.mktemp("template") / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    listing = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in git(clone, "ls-files", "-z").split("\0"):
        if name:
            (clone / name).unlink(missing_ok=True)
    for name in listing.split("\0"):
        if name and (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--allow-empty", "-m", "Head")
    tag(clone)
    git(clone, "tag", "v1000.0.0")
    return clone
