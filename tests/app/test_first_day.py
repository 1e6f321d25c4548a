"""The page "First day", followed as written."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.render.test_project_documents import CREATED, code_blocks
from tests.support.projects import ROOT, Generate, Project

pytestmark = pytest.mark.slow

GUIDE = (ROOT / "docs/first-day.md").read_text("utf-8")
PASSWORD = "seven wet otters on a raft\n"


def insert(project: Project, before: str, text: str) -> None:
    routers = project.path / "app/api/routers.py"
    source = routers.read_text("utf-8")
    assert before in source
    routers.write_text(source.replace(before, f"{text}{before}", 1), "utf-8")


def write_code(project: Project) -> None:
    for block in code_blocks(GUIDE):
        if match := CREATED.match(block):
            (project.path / match[1]).write_text(block.partition("\n")[2], "utf-8")
        elif block.startswith("from "):
            insert(project, "from app.api.v1.home", block)
        else:
            insert(project, "\n    app.include_router(v1)", f"    {block.strip()}\n")


def test_the_first_day_ends_with_a_tested_route(generate: Generate, tmp_path: Path) -> None:
    shutil.copytree(generate(auth=True, github=True).path, tmp_path / "my_app")
    project = Project(tmp_path / "my_app", {})
    project.succeed("alembic", "upgrade", "head")
    write_code(project)

    commands = re.findall(r"^\.venv/bin/(.+)$", GUIDE, re.MULTILINE)

    assert len(commands) == 8
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "my-app":
            project.succeed("app", *arguments, stdin=PASSWORD)
        elif program != "uvicorn":
            project.succeed(program, *arguments)
