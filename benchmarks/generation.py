"""How long it takes to create a project, update it, set it up and start it.

The project is created with an empty home directory: first with nothing cached ("cold"), then again
("warm").
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.databases import COPIER, UV, render
from benchmarks.table import Row, compared, interleaved, limited, seconds
from tests.support.machines import Machine, base_python
from tests.support.servers import Server

IDENTITY = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
BARE_ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})
"""


def ways(checkout: Path, project: Path) -> dict[str, list[list[str | Path]]]:
    """The commands of the README by which a project is created; each begins with its tool."""
    copy: list[str | Path] = ["copy", "--trust", "--quiet", "--defaults", checkout, project]
    own = project.with_name(f"{project.name}-copier")
    script: list[str | Path] = ["python3", checkout / "create_project.py", project]
    return {
        "uvx copier": [["uvx", "copier", *copy]],
        "copier of pip": [
            ["python3", "-m", "venv", own],
            [own / "bin/pip", "install", "-q", "copier"],
            [own / "bin/copier", *copy],
        ],
        "create_project.py, uv": [script],
        "create_project.py, pip": [script],
    }


def create_and_serve(machine: Machine, commands: list[list[str | Path]], project: Path) -> float:
    """Seconds from the first command to the first 200."""

    def whole_way() -> None:
        for command in commands:
            code, said = machine.run(*command, cwd=project.parent)
            if code != 0:
                raise SystemExit(said)
        with Server(machine, [project / ".venv/bin/uvicorn", "app.main:app"], project):
            pass

    return seconds(whole_way)


def creation(folder: Path, checkout: Path) -> tuple[list[Row], Path]:
    rows = []
    for number, way in enumerate(ways(checkout, folder)):
        uses_uv = "uv" in way
        tools = {"uv": UV, "uvx": UV + "x"} if uses_uv else {}
        machine = Machine(folder / f"home-{number}", {"python3": base_python(), **tools})
        took = {}
        for caches in ("cold", "warm"):
            project = folder / f"created-{number}-{caches}"
            took[caches] = create_and_serve(machine, ways(checkout, project)[way], project)
        rows += [
            Row(f"{way}, to the first 200, cold", f"{took['cold']:.1f} s"),
            limited(f"{way}, to the first 200, warm", took["warm"], "s", 12 if uses_uv else 60),
        ]
    return rows, project


def commit_all(folder: Path) -> None:
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "All"]):
        subprocess.run(["git", *IDENTITY, *command], cwd=folder, check=True)


def plain_template(folder: Path, project: Path) -> Path:
    """A template of as many files, without a question or a line of Jinja."""
    template = folder / "plain"
    shutil.copytree(project, template / "template", ignore=shutil.ignore_patterns(".git"))
    (template / "copier.yml").write_text("_subdirectory: template\n")
    commit_all(template)
    return template


def rendering(folder: Path, checkout: Path) -> list[Row]:
    project = render(checkout, folder / "rendered")
    bare = folder / "without-options"
    command = [COPIER, "copy", "--skip-tasks", "--defaults", "--quiet"]
    off = ["--data", "auth=false", "--data", "github=false", "--data", "docker=false"]
    subprocess.run([*command, *off, str(checkout), str(bare)], check=True, capture_output=True)
    plain = plain_template(folder, project)
    commit_all(project)

    def copy(template: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            render(template, Path(work, "project"))

    def update() -> None:
        environment = {**os.environ, "COPIER_FASTAPI_SETUP": "skip"}
        update = [COPIER, "update", "--trust", "--defaults", "--quiet"]
        subprocess.run(update, cwd=project, env=environment, check=True, capture_output=True)

    ours, baseline = interleaved(lambda: copy(checkout), lambda: copy(plain))
    updated, copied = interleaved(update, lambda: copy(checkout))
    return [
        limited("files, every option", count(project), "files", 75),
        limited("files, no option", count(bare), "files", 40),
        compared("copier copy", ours, "s", baseline, "as many plain files", 1.3),
        compared("copier update without changes", updated, "s", copied, "copier copy", 2.5),
    ]


def count(project: Path) -> int:
    files = [file for file in project.rglob("*") if file.is_file()]
    return len([file for file in files if ".git" not in file.relative_to(project).parts])


def starting(folder: Path, project: Path) -> list[Row]:
    bare = folder / "bare"
    bare.mkdir()
    (bare / "bare.py").write_text(BARE_ASGI)
    machine = Machine(folder / "serve-home", {"python3": base_python()})
    uvicorn = project / ".venv/bin/uvicorn"

    def start(command: str, cwd: Path) -> int:
        """Resident memory in KiB right after the first 200."""
        with Server(machine, [uvicorn, command], cwd) as server:
            status = Path(f"/proc/{server.process.pid}/status").read_text()
            return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])

    memory = start("app.main:app", project) / 1024
    ours, baseline = interleaved(
        lambda: start("app.main:app", project), lambda: start("bare:app", bare)
    )
    return [
        compared("first 200 after start", ours, "s", baseline, "bare ASGI", 4.5),
        limited("memory of an idle worker", memory, "MiB", 85),
    ]


def measure(folder: Path, checkout: Path) -> list[Row]:
    rows, project = creation(folder, checkout)
    return [*rows, *rendering(folder, checkout), *starting(folder, project)]
