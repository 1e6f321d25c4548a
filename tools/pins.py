"""Compiles the exact versions: `python -m tools.pins [--upgrade]`.

Run it after changing a dependency. template/constraints.txt.jinja has the versions that a generated
project installs, template/requirements.txt.jinja those of production, with hashes. Both are what
the project's own `lock` writes. requirements-dev.txt has those of this repository's environment.
"""

import itertools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from copier import run_copy

ROOT = Path(__file__).resolve().parents[1]
FILES = ("constraints.txt", "requirements.txt")
OPTIONS = ["--universal", "--python-version", "3.11", "--no-annotate", "--no-header", "--quiet"]


def render(folder: Path, *, auth: bool) -> Path:
    answers = {"auth": auth}
    run_copy(str(ROOT), folder, answers, vcs_ref="HEAD", defaults=True, skip_tasks=True, quiet=True)
    return folder


def lock(project: Path, *arguments: str) -> None:
    """What an owner runs. Versions already in the project's constraints are kept."""
    subprocess.run([sys.executable, "-m", "app", "lock", *arguments], cwd=project, check=True)


def merge(everything: str, without_auth: str) -> str:
    """A template of both: the lines that only login needs are its own."""
    always = without_auth.splitlines(keepends=True)
    lines = []
    for is_always, found in itertools.groupby(
        everything.splitlines(keepends=True), always.__contains__
    ):
        group = list(found)
        lines += group if is_always else ["{% if auth %}\n", *group, "{% endif %}\n"]
    return "".join(lines)


def main(upgrade: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project, without_auth = (
            render(Path(folder, str(auth)), auth=auth) for auth in (True, False)
        )
        lock(project, *upgrade)
        shutil.copy(project / FILES[0], without_auth)
        lock(without_auth)
        for file in FILES:
            texts = [(side / file).read_text("utf-8") for side in (project, without_auth)]
            (ROOT / f"template/{file}.jinja").write_text(merge(*texts), "utf-8")
        dev, target = f"{ROOT / 'pyproject.toml'}:dev", ROOT / "requirements-dev.txt"
        command = [sys.executable, "-m", "uv", "pip", "compile", *OPTIONS, "--group", dev]
        command += ["--generate-hashes", "--output-file", str(target), *upgrade]
        command += ["--constraint", str(project / FILES[0])]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
