"""What a server installs: exact versions, checked by their hashes, and no development tools."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.machines import Machine, base_python
from tests.support.servers import Server

pytestmark = pytest.mark.slow

PRODUCTION = {"ENVIRONMENT": "production", "ALLOWED_HOSTS": "127.0.0.1,api.example.com"}
DEVELOPMENT_TOOLS = {"copier", "httpx2", "mypy", "prek", "pytest", "ruff", "typos", "uv"}
# As docs/operating.md has them.
COMMANDS = {
    "pip": [
        "python3 -m venv .venv",
        ".venv/bin/pip install --require-hashes -r requirements.txt",
        ".venv/bin/pip install --no-deps --no-build-isolation .",
    ],
    "uv": [
        "uv venv .venv",
        "uv pip sync --require-hashes requirements.txt",
        "uv pip install --no-deps --no-build-isolation .",
    ],
}

Install = Callable[[str], tuple[Machine, Path]]


@pytest.fixture
def project(checkout: Path, tmp_path: Path) -> Path:
    copier = Path(sys.executable).with_name("copier")
    machine = Machine(tmp_path / "author")
    folder = tmp_path / "srv"
    machine.run(copier, "copy", "--skip-tasks", "--defaults", checkout, folder, cwd=tmp_path)
    return folder


def machine_with(tool: str, folder: Path) -> Machine:
    """A machine with pip alone, or with uv."""
    uv = {"uv": str(Path(sys.executable).with_name("uv"))} if tool == "uv" else {}
    return Machine(folder / "home", {"python3": base_python(), **uv})


def succeed(machine: Machine, project: Path, command: str) -> str:
    code, said = machine.run(*command.split(), cwd=project, environment=PRODUCTION)
    assert code == 0, said
    return said


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_p1_production_installs_what_the_lock_has_and_is_ready(
    project: Path, tmp_path: Path, tool: str
) -> None:
    """Not editable: the code is in site-packages, and the migrations are in the folder."""
    machine = machine_with(tool, tmp_path)
    for command in [*COMMANDS[tool], ".venv/bin/alembic upgrade head"]:
        succeed(machine, project, command)

    said = succeed(machine, project, ".venv/bin/my-app check --deploy")
    assert "requirements.txt" not in said
    programs = {file.name for file in (project / ".venv/bin").iterdir()}
    assert programs & DEVELOPMENT_TOOLS == set()
    serve = [project / ".venv/bin/my-app", "serve"]
    with Server(machine, serve, project, **PRODUCTION) as server:
        assert server.get("/health/ready").status == 200


def test_p1_production_installs_no_file_with_another_hash(project: Path, tmp_path: Path) -> None:
    machine = machine_with("uv", tmp_path)
    lock = project / "requirements.txt"
    lock.write_text(re.sub(r"(?<=sha256:)\w{4}", "0000", lock.read_text()))
    succeed(machine, project, COMMANDS["uv"][0])

    code, said = machine.run(*COMMANDS["uv"][1].split(), cwd=project)

    assert code != 0
    assert "hash" in said.casefold()
    assert not (project / ".venv/bin/uvicorn").exists()


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_one_command_locks_an_added_library(project: Path, tmp_path: Path, tool: str) -> None:
    """Without uv, pip installs it for that one time."""
    machine = machine_with(tool, tmp_path)
    for command in [*COMMANDS["uv"], ".venv/bin/alembic upgrade head"]:
        succeed(machine_with("uv", tmp_path / "other"), project, command)
    ...
