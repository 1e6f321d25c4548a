"""Compiles the exact versions: `python -m tools.pins [--upgrade]`.

Run it after changing a dependency. template/constraints.txt.jinja has the versions that a generated
project installs; requirements-dev.txt has those of this repository's environment, with hashes.
"""

import itertools
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from copier import run_copy

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "template/constraints.txt.jinja"
HEADER = "# The exact versions that this release was tested with. Setup installs these.\n"
OPTIONS = ["--universal", "--python-version", "3.11", "--no-annotate", "--no-header", "--quiet"]


def compile_pins(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "uv", "pip", "compile", *OPTIONS, *arguments], check=True)


def project_pins(folder: Path, *arguments: str | Path, auth: bool) -> list[str]:
    """What a project installs. Versions already in its constraints are kept."""
    answers = {"auth": auth}
    run_copy(str(ROOT), folder, answers, vcs_ref="HEAD", defaults=True, skip_tasks=True, quiet=True)
    target = folder / "constraints.txt"
    sources = folder / "pyproject.toml", write_build_requirements(folder)
    compile_pins(*sources, "--all-extras", "--output-file", target, *arguments)
    return target.read_text("utf-8").splitlines(keepends=True)


def write_build_requirements(folder: Path) -> Path:
    """What builds the project, which the compiler leaves out."""
    package = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    file = folder / "build.in"
    file.write_text("\n".join(package["build-system"]["requires"]), "utf-8")
    return file


def main(upgrade: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        everything = project_pins(Path(folder, "all"), *upgrade, auth=True)
        exact = Path(folder, "all/constraints.txt")
        without_auth = project_pins(Path(folder, "less"), "--constraint", exact, auth=False)
        lines = [HEADER]
        for is_always, found in itertools.groupby(everything, without_auth.__contains__):
            group = list(found)
            lines += group if is_always else ["{% if auth %}\n", *group, "{% endif %}\n"]
        CONSTRAINTS.write_text("".join(lines), "utf-8")
        dev, target = f"{ROOT / 'pyproject.toml'}:dev", ROOT / "requirements-dev.txt"
        hashed = ["--generate-hashes", "--output-file", str(target), *upgrade]
        compile_pins("--group", dev, "--constraint", exact, *hashed)


if __name__ == "__main__":
    main(sys.argv[1:])
