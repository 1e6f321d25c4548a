"""Runs the tests of this repository: `python -m tests [--slow] [pytest arguments]`.

Standard library only. It makes `.venv` from requirements-dev.txt when that changed, so it works
wherever Python 3.11 and the network are, and installs nothing into the system's Python.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "installed.txt"
# pytest's exit code for it.
NOTHING_RAN = 5


def wanted() -> str:
    """What the environment should be made of; compared with what it was made of."""
    return f"{sys.version}\n{VENV}\n{(ROOT / 'requirements-dev.txt').read_text('utf-8')}"


def make_environment() -> None:
    print("Making .venv from requirements-dev.txt (about a minute, once) ...", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=False).returncode:
        sys.exit(
            "This Python can't create environments. "
            "On Debian or Ubuntu: sudo apt install python3-venv"
        )
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    if subprocess.run([*pip, "-r", "requirements-dev.txt"], cwd=ROOT, check=False).returncode:
        sys.exit("The packages of requirements-dev.txt could not be installed: see above.")
    STAMP.write_text(wanted(), "utf-8")


def run(arguments: list[str]) -> int:
    return subprocess.run([PYTHON, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 11):
        sys.exit("The tests need Python 3.11 or newer, and this is %d.%d." % sys.version_info[:2])
    if not STAMP.is_file() or STAMP.read_text("utf-8") != wanted():
        make_environment()
    # A file stays on one core, since its tests share servers. Files start in order, and those with
    # the longest tests are in tests/app, which comes first.
    every_core = ["--numprocesses", "auto", "--dist", "loadfile", "--no-loadscope-reorder"]
    if "--slow" not in arguments:
        return run(["-m", "not slow", *every_core, *arguments])
    arguments.remove("--slow")
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        # Wine can do one thing at a time, and often waits.
        command = [str(PYTHON), "-m", "pytest", "-m", "slow and wine", *arguments]
        wine = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        codes = {run(["-m", "slow and not alone and not wine", *every_core, *arguments])}
        codes.add(wine.wait())
        output.seek(0)
        shutil.copyfileobj(output, sys.stdout)
        sys.stdout.flush()
    codes.add(run(["-m", "slow and alone", *arguments]))
    # If only some of the runs have matching tests, the others did not fail.
    return max(codes - {NOTHING_RAN} or codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
