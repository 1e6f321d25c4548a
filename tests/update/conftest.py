"""The template with its history and its releases, and projects that are updated from it."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from copier import run_copy, run_update
from plumbum import local

from tests.projects import ROOT, Project
from tests.releases import tag
from tests.update.edits import git

Start = Callable[..., Project]
Update = Callable[..., None]


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


@pytest.fixture
def start(template: Path, tmp_path: Path) -> Start:
    """Generate a project from a version of the template."""

    def make(version: str, source: Path = template, **answers: Any) -> Project:
        project = Project(tmp_path / "shelf", answers)
        run_copy(
            str(source),
            project.path,
            answers,
            vcs_ref=version,
            defaults=True,
            skip_tasks=True,
            quiet=True,
        )
        return project

    return make


@pytest.fixture
def update() -> Update:
    """`copier update --trust` to a version, without installing anything."""

    def run(project: Project, version: str | None = None, **answers: Any) -> None:
        with local.env(COPIER_FASTAPI_SETUP="skip"):
            run_update(
                project.path,
                answers,
                vcs_ref=version,
                defaults=True,
                overwrite=True,
                unsafe=True,
                quiet=True,
            )

    return run
