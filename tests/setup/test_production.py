"""What a server installs: exact versions, checked by their hashes, and no development tools."""

import re
import sys
from pathlib import Path

import pytest

from tests.support.machines import Machine, base_python
from tests.support.servers import Server

pytestmark = pytest.mark.slow

PRODUCTION = {"ENVIRONMENT": "production", "ALLOWED_HOSTS": "127.0.0.1,api.example.com"}
DEVELOPMENT_TOOLS = {"copier", "httpx2", "mypy", "prek", "pytest", "ruff", "typos", "uv"}
ADDED = 'dependencies = [\n    "Markdown>=3.8",\n'
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


def render(checkout: Path, folder: Path) -> Path:
    copier = Path(sys.executable).with_name("copier")
    command = (copier, "copy", "--skip-tasks", "--defaults", checkout, "srv")
    machine = Machine(folder / "author")
    code, said = machine.run(*command, cwd=folder)
    assert code == 0, said
    return folder / "srv"


def machine_with(tool: str, folder: Path) -> Machine:
    """A machine with pip alone, or with uv."""
    uv = {"uv": str(Path(sys.executable).with_name("uv"))} if tool == "uv" else {}
    return Machine(folder / "home", {"python3": base_python(), **uv})


def succeed(machine: Machine, project: Path, command: str) -> str:
    code, said = machine.run(*command.split(), cwd=project, environment=PRODUCTION)
    assert code == 0, said
    return said


@pytest.fixture(scope="module", params=["pip", "uv"])
def installed(
    request: pytest.FixtureRequest, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Machine, Path]:
    folder = tmp_path_factory.mktemp("production")
    project, machine = render(checkout, folder), machine_with(request.param, folder)
    for command in [*COMMANDS[request.param], ".venv/bin/alembic upgrade head"]:
        succeed(machine, project, command)
    return machine, project


def test_p1_production_installs_what_the_lock_has_and_is_ready(
    installed: tuple[Machine, Path],
) -> None:
    """Not editable: the code is in site-packages, and the migrations are in the folder."""
    machine, project = installed

    said = succeed(machine, project, ".venv/bin/my-app check --deploy")

    assert "requirements.txt" not in said
    programs = {file.name for file in (project / ".venv/bin").iterdir()}
    assert programs & DEVELOPMENT_TOOLS == set()
    serve: list[str | Path] = [project / ".venv/bin/my-app", "serve"]
    with Server(machine, serve, project, **PRODUCTION) as server:
        assert server.get("/health/ready").status == 200


def test_one_command_locks_an_added_library(installed: tuple[Machine, Path]) -> None:
    """Without uv, pip installs it for this one time."""
    machine, project = installed
    package, lock = project / "pyproject.toml", project / "requirements.txt"
    package.write_text(package.read_text().replace("dependencies = [\n", ADDED, 1))
    before = lock.read_text()

    code, said = machine.run(".venv/bin/my-app", "check", cwd=project)
    assert code == 1
    assert "requirements.txt lacks markdown: run `python -m app lock`" in said
    succeed(machine, project, ".venv/bin/my-app lock")

    succeed(machine, project, ".venv/bin/my-app check --deploy")
    added = [line for line in lock.read_text().splitlines() if line not in before.splitlines()]
    assert [line[:10] for line in added] == ["markdown==", *["    --hash"] * 2]
    assert "\nmarkdown==" in (project / "constraints.txt").read_text()


def test_p1_production_installs_no_file_with_another_hash(checkout: Path, tmp_path: Path) -> None:
    project, machine = render(checkout, tmp_path), machine_with("uv", tmp_path)
    lock = project / "requirements.txt"
    lock.write_text(re.sub(r"(?<=sha256:)\w{4}", "0000", lock.read_text()))
    succeed(machine, project, COMMANDS["uv"][0])

    code, said = machine.run(*COMMANDS["uv"][1].split(), cwd=project)

    assert code != 0
    assert "hash" in said.casefold()
    assert not (project / ".venv/bin/uvicorn").exists()
