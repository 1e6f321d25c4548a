"""The documents of a project name only files, names, commands and settings that it has."""

import ast
import json
import re
import subprocess
import sys
import textwrap
from pathlib import PurePosixPath
from typing import Any

import pytest

from tests.support.projects import ROOT, Generate, Project, clean_environment

DEVELOPING = "docs/developing.md"
DOCUMENTS = ["AGENTS.md", "README.md", DEVELOPING, "docs/operating.md", "docs/security.md"]
FILE_TYPES = {".bat", ".example", ".ini", ".md", ".py", ".sh", ".toml", ".txt", ".yml"}

# What the reader creates by following the documents, or the app while it runs.
NOT_YET_THERE = re.compile(r"\.env|\.venv/.*|backups/|utils\.py|.*(book|note|cover).*")
CREATED = re.compile(r"^# (app/[\w/]+\.py|tests/[\w/]+\.py)$", re.MULTILINE)

# Prints which of the names do not exist, and the commands and settings that do.
INSPECT = """
import json, sys
from importlib import import_module
from pkgutil import resolve_name

import typer

from app.cli import cli
from app.settings import Settings

def exists(name):
    try:
        resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True

def walk(command, path=()):
    yield " ".join(path)
    for name, sub in getattr(command, "commands", {}).items():
        yield from walk(sub, (*path, name))

json.dump({
    "missing": [name for name in sys.argv[1:] if not exists(name)],
    "commands": [*walk(typer.main.get_command(cli))],
    "settings": [name.upper() for name in Settings.model_fields],
}, sys.stdout)
"""


def inspect(project: Project, *names: str) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-c", INSPECT, *names],
        cwd=project.path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def code_blocks(text: str, language: str = "python") -> list[str]:
    fence = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for _, found, code in fence.findall(text) if found == language]


def imported_names(code: str) -> set[str]:
    """`app.core.types.Text` for `from app.core.types import Text`, and so on."""
    return {
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("app.")
        for alias in node.names
    }


def created_modules(project: Project) -> set[str]:
    files = CREATED.findall("\n".join(code_blocks(project.read(DEVELOPING))))
    return {file.removesuffix(".py").replace("/", ".") for file in files}


def listed_names(project: Project) -> list[str]:
    """The names that owners can import."""
    section = project.read(DEVELOPING).partition("## Names that you can import")[2]
    return re.findall(r"^\| `(app\.[\w.]+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(project: Project, document: str) -> None:
    text = project.read(document)
    targets = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}

    assert [
        link for link in targets if not (project.path / document).parent.joinpath(link).exists()
    ] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_exist(project: Project, document: str) -> None:
    text = project.read(document)
    spans = set(re.findall(r"`([\w.-]+(?:/[\w.-]*)*)`", text))
    files = {span for span in spans if PurePosixPath(span).suffix in FILE_TYPES}
    files |= set(re.findall(r"(?<![\w./-])(?:app|docs|tests|alembic)/[\w/.]*\w", text))
    files -= set(CREATED.findall(text))

    assert [f for f in sorted(files) if not project.has(f) and not NOT_YET_THERE.fullmatch(f)] == []


def test_names_of_the_code_exist(project: Project) -> None:
    text = "\n".join(project.read(document) for document in DOCUMENTS)
    names = set(re.findall(r"(?<!-)\bapp(?:\.[A-Za-z_]\w*)+\b(?!\()", text))
    names = names.union(*(imported_names(code) for code in code_blocks(text)))
    created = created_modules(project)
    of_the_project = {
        name
        for name in names
        if not any(name == module or name.startswith(f"{module}.") for module in created)
    }

    assert of_the_project > {"app.core.routing.Router", "app.errors.NotFound"}
    assert inspect(project, *sorted(of_the_project))["missing"] == []


def test_commands_exist(project: Project) -> None:
    commands = inspect(project)["commands"]
    for document in DOCUMENTS:
        used = re.findall(
            r"(?<![\w/-])my-app (?!my-app)([a-z][a-z-]*)(?: ([a-z][a-z-]*))?",
            project.read(document),
        )
        for first, second in used:
            known = first in commands and not any(c.startswith(f"{first} ") for c in commands)
            created = NOT_YET_THERE.fullmatch(first)
            assert known or created or f"{first} {second}" in commands, (document, first, second)


def test_every_setting_is_in_the_table(project: Project) -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", project.read("docs/operating.md"), re.MULTILINE)

    assert sorted(rows) == sorted(inspect(project)["settings"])


def test_code_of_the_documents_compiles(project: Project) -> None:
    blocks = code_blocks(project.read(DEVELOPING))

    assert len(blocks) > 10
    for block in blocks:
        compile(block, DEVELOPING, "exec")


# Where the commands of docs/operating.md are run, by section.
RUN_BY = {
    "Paged at night": "tests/deploy/test_one_host.py",
    "Put it into production": "tests/deploy/test_one_host.py",
    "Deploy the next release": "tests/deploy/test_one_host.py",
    "Roll back": "tests/deploy/test_one_host.py",
    "Back up and restore": "tests/deploy/test_one_host.py",
    "`serve`": "tests/app/test_server.py",
    "Run it in containers": "tests/deploy/test_image.py",
    "Metrics and alerts": "tests/app/test_telemetry.py",
    "Mail": "tests/auth_internals/test_mail.py",
    "PostgreSQL": "tests/app/test_postgres.py",
    "A role that can't change the schema": "tests/app/test_postgres.py",
    "Past one machine": "tests/app/test_several_machines.py",
}


def test_each_section_with_commands_has_a_test_that_runs_them(generate: Generate) -> None:
    text = generate().read("docs/operating.md")
    parts = re.split(r"^##+ (.+)$", text, flags=re.MULTILINE)[1:]
    with_commands = {
        title for title, part in zip(parts[::2], parts[1::2], strict=True) if "```" in part
    }

    assert with_commands == set(RUN_BY)
    assert [file for file in RUN_BY.values() if not (ROOT / file).exists()] == []


def test_agents_and_readme_are_short(project: Project) -> None:
    assert len(project.read("README.md").splitlines()) <= 58
    assert len(project.read("AGENTS.md").splitlines()) <= 60
