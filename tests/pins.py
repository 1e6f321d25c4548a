"""Compiles the exact versions: `python -m tests.pins [--upgrade]` after a dependency changed.

template/constraints.txt is what a generated project installs with; requirements-dev.txt, with
hashes, is the environment of this repository's tests. Neither records where a file came from.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from copier import run_copy

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "template/constraints.txt"
HEADER = "# The exact versions that this release of the template was tested with; set-up installs with them.\n"
OPTIONS = ["--universal", "--python-version", "3.11", "--no-annotate", "--no-header", "--quiet"]


def compile_pins(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "uv", "pip", "compile", *OPTIONS, *arguments], check=True)


def main(upgrade: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_copy(str(ROOT), folder, vcs_ref="HEAD", defaults=True, skip_tasks=True, quiet=True)
        project = Path(folder, "pyproject.toml")
        compile_pins(project, "--all-extras", "--output-file", CONSTRAINTS, *upgrade)
    CONSTRAINTS.write_text(HEADER + CONSTRAINTS.read_text("utf-8"), "utf-8")
    group, target = f"{ROOT / 'pyproject.toml'}:dev", ROOT / "requirements-dev.txt"
    hashed = ["--generate-hashes", "--output-file", str(target), *upgrade]
    compile_pins("--group", group, "--constraint", CONSTRAINTS, *hashed)


if __name__ == "__main__":
    main(sys.argv[1:])
