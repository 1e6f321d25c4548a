"""Prints the numbers of generation and start-up: `.venv/bin/python -m benchmarks` (about three minutes).

Ratios compare medians of interleaved rounds in this one run; below 1.3 they mean nothing. A project
is made on a machine with an empty home, first without anything cached ("cold"), then again ("warm").
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.machines import Machine, base_python, check_out
from tests.servers import Server

ROUNDS = 5
COPIER = str(Path(sys.executable).with_name("copier"))
UV = str(Path(sys.executable).with_name("uv"))
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


@dataclass(frozen=True)
class Row:
    what: str
    figure: str
    goal: str = ""


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def interleaved(ours: Callable[[], object], baseline: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of each, measured in turns."""
    rounds = [(seconds(ours), seconds(baseline)) for _ in range(ROUNDS)]
    return statistics.median(o for o, _ in rounds), statistics.median(b for _, b in rounds)


def render(template: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as work:
        command = [
            COPIER,
            "copy",
            "--skip-tasks",
            "--defaults",
            "--quiet",
            str(template),
            f"{work}/project",
        ]
        subprocess.run(command, check=True, capture_output=True)


def plain_template(folder: Path, project: Path) -> Path:
    """A template of as many files, without a question or a line of Jinja."""
    template = folder / "plain"
    shutil.copytree(project, template / "template")
    (template / "copier.yml").write_text("_subdirectory: template\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "All"]):
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
        subprocess.run(["git", *identity, *command], cwd=template, check=True)
    return template


def create_and_serve(machine: Machine, checkout: Path, project: Path) -> float:
    """Seconds from `create_project.py` to the first 200."""

    def whole_way() -> None:
        code, said = machine.run(
            "python3", checkout / "create_project.py", project, cwd=project.parent
        )
        if code != 0:
            raise SystemExit(said)
        with Server(machine, [project / ".venv/bin/uvicorn", "app.main:app"], project):
            pass

    return seconds(whole_way)


def generation(folder: Path, checkout: Path) -> tuple[list[Row], Path]:
    pip = Machine(folder / "pip-home", {"python3": base_python()})
    uv = Machine(folder / "uv-home", {"python3": base_python(), "uv": UV, "uvx": UV + "x"})
    rows = [
        Row(f"create_project.py to the first 200, {tool}, {cache}", f"{took:.1f} s", goal)
        for tool, machine, warm_goal in (("pip", pip, "60 s"), ("uv", uv, "12 s"))
        for cache, goal in (("cold", ""), ("warm", warm_goal))
        for took in [create_and_serve(machine, checkout, folder / f"{tool}-{cache}")]
    ]
    return rows, folder / "pip-warm"


def rendering(folder: Path, checkout: Path) -> list[Row]:
    project = folder / "rendered"
    command = [COPIER, "copy", "--skip-tasks", "--defaults", "--quiet", str(checkout), str(project)]
    subprocess.run(command, check=True, capture_output=True)
    files = [file for file in project.rglob("*") if file.is_file()]
    lines = sum(
        len(file.read_text("utf-8").splitlines()) for file in (project / "app").rglob("*.py")
    )
    plain = plain_template(folder, project)
    ours, baseline = interleaved(lambda: render(checkout, folder), lambda: render(plain, folder))
    return [
        Row("files rendered", str(len(files)), "75 (40 without options)"),
        Row("lines of Python in app/", str(lines)),
        Row(
            "copier copy, against as many plain files",
            f"{ours:.2f} s, {ours / baseline:.2f}x",
            "1.3x",
        ),
    ]


def serving(folder: Path, project: Path) -> list[Row]:
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

    memory = start("app.main:app", project)
    ours, baseline = interleaved(
        lambda: start("app.main:app", project), lambda: start("bare:app", bare)
    )
    return [
        Row(
            "first 200 after start, against bare ASGI",
            f"{ours:.2f} s, {ours / baseline:.1f}x",
            "4.5x",
        ),
        Row("memory of an idle worker", f"{memory / 1024:.0f} MiB", "85 MiB"),
    ]


def main() -> None:
    # Set in many containers; it makes every start compile everything again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        checkout = check_out(folder / "checkout")
        rows, project = generation(folder, checkout)
        rows += rendering(folder, checkout) + serving(folder, project)
    print("| what | measured | goal: at most |\n|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.figure} | {row.goal} |")


if __name__ == "__main__":
    main()
