"""Projects that are updated from a release of the template."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from copier import run_copy, run_update
from plumbum import local

from tests.support.projects import Project

Start = Callable[..., Project]
Update = Callable[..., None]


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
