"""What setup.sh and setup.bat do with the Python of `.venv`: dependencies, `.env`, database.

It needs only the standard library, because nothing is installed yet.
"""

import argparse
import importlib.util
import io
import os
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

WINDOWS = os.name == "nt"
PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = "setup.bat" if WINDOWS else "./setup.sh"
PROGRAMS = Path(".venv", "Scripts" if WINDOWS else "bin")
# What the user called the folder of a new project.
FOLDER_VARIABLE = "COPIER_FASTAPI_FOLDER"
# What was installed, and where. `.venv` has to be created again when the project moves.
STAMP = PROJECT / ".venv/installed.txt"
# An installation that was killed leaves incomplete packages behind.
UNFINISHED = PROJECT / ".venv/half-installed"
ENVIRONMENT = {
    "PYTHONIOENCODING": "utf-8",
    # pip's configuration may say otherwise, which fails in a virtual environment.
    "PIP_USER": "0",
    # What builds the project has an exact version, too. The second one is for pip before 25.3.
    "PIP_BUILD_CONSTRAINT": "constraints.txt",
    "PIP_CONSTRAINT": "constraints.txt",
    "UV_BUILD_CONSTRAINT": "constraints.txt",
}

# Setup shows the lines of Alembic's output that begin with one of these.
_SHOWN = ("Running upgrade", "Backed up", "Breaking", "The database is ahead")
# With this one, the database is new, so it has no users.
_FIRST = "Running upgrade  ->"


class SetupError(Exception):
    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


def main() -> int:
    parser = argparse.ArgumentParser(prog=SCRIPT, description="Set up this project.")
    parser.add_argument("--verbose", action="store_true", help="show what each step prints")
    # For the programs that call the script: only check .venv; the project is new, or was updated.
    for name in ("--is-usable", "--new", "--updated"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # On Windows, a pipe uses a legacy code page, which lacks most characters.
            stream.reconfigure(errors="backslashreplace")
    if options.is_usable:
        return int(not is_usable())
    os.chdir(PROJECT)
    started_at = time.monotonic()
    try:
        install_dependencies(options.verbose)
        create_env_file()
        lines = migrate(options.verbose)
        for line in lines:
            if not options.new:
                say(line)
    except SetupError as error:
        print(f"[setup] ERROR: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\n[setup] Interrupted. Run {SCRIPT} again to finish.", file=sys.stderr)
        return 130
    say(f"Done in {time.monotonic() - started_at:.0f} s.")
    if not options.updated:
        commit_to_git()
        folder = os.environ.get(FOLDER_VARIABLE, "") if options.new else ""
        # With --verbose, the lines were not read.
        database_is_new = options.verbose or any(line.startswith(_FIRST) for line in lines)
        print_next_commands(folder, database_is_new)
    return 0


def is_usable() -> bool:
    moved = STAMP.exists() and STAMP.read_text("utf-8").splitlines()[:1] != [str(PROJECT)]
    return not moved and not UNFINISHED.exists() and bool(importlib.util.find_spec("pip"))


def install_dependencies(verbose: bool) -> None:
    files = [PROJECT / name for name in ("pyproject.toml", "constraints.txt")]
    wanted = "\n".join([str(PROJECT), *(file.read_text("utf-8") for file in files)])
    if STAMP.exists() and STAMP.read_text("utf-8") == wanted:
        return say("2/4 Dependencies: already installed")
    if shutil.which("uv"):
        install = ["uv", "pip", "install", "--python", sys.executable]
    else:
        pip = [sys.executable, "-P", "-m", "pip"]
        install = [*pip, "install", "--disable-pip-version-check", "--retries", "2"]
    install += ["--constraint", "constraints.txt", "--editable", ".[dev]"]
    reason = "could not install the dependencies (see above)."
    failed = SetupError(14, f"{reason} If you were offline, connect and run {SCRIPT} again")
    UNFINISHED.touch()
    try:
        run(install, failed, verbose, step="2/4 Dependencies")
    except SetupError:
        # It failed, but was not interrupted, so every package is complete or missing.
        UNFINISHED.unlink()
        raise
    UNFINISHED.unlink()
    STAMP.write_text(wanted, "utf-8")


def create_env_file() -> None:
    say("3/4 Settings (.env)")
    if os.path.lexists(".env"):
        return
    new = Path(".env.new")
    try:
        example = Path(".env.example").read_bytes()
        # Only this user can read it.
        new.touch(mode=0o600)
        new.write_bytes(example)
        new.replace(".env")
    except OSError as error:
        raise SetupError(15, f"could not write .env: {error}") from None


def migrate(verbose: bool) -> list[str]:
    """The lines in which Alembic says what it changed."""
    # A database must not be ahead of an app that does not work.
    broken = SetupError(17, "could not import the app (see above)")
    run([sys.executable, "-c", "import app.main"], broken, verbose)
    failed = SetupError(16, "could not migrate the database (see above)")
    upgrade = [sys.executable, "-m", "alembic", "upgrade", "head"]
    lines = run(upgrade, failed, verbose, step="4/4 Database").splitlines()
    return [line for line in lines if line.startswith(_SHOWN)]


def run(command: list[str], failure: SetupError, verbose: bool, step: str = "") -> str:
    """Run a command and return its output, which is shown if it fails.

    A terminal shows the step and counts the seconds in one line.
    """
    counts = bool(step) and sys.stdout.isatty() and not verbose
    if step:
        say(step, end="" if counts else "\n")
    environment = {**os.environ, **ENVIRONMENT}
    output, errors = (None, None) if verbose else (subprocess.PIPE, subprocess.STDOUT)
    started_at = time.monotonic()
    with subprocess.Popen(command, env=environment, stdout=output, stderr=errors) as process:  # noqa: S603
        while True:
            try:
                said, _ = process.communicate(timeout=1)
                break
            except subprocess.TimeoutExpired:
                if counts:
                    say(f"{step}: {time.monotonic() - started_at:.0f} s", start="\r", end="")
    if counts:
        print(flush=True)
    text = (said or b"").decode("utf-8", "replace")
    if process.returncode:
        print(text, end="", file=sys.stderr, flush=True)
        raise failure
    return text


def say(line: str, start: str = "", end: str = "\n") -> None:
    print(f"{start}[setup] {line}", end=end, flush=True)


def print_next_commands(folder: str, database_is_new: bool = True) -> None:
    commands = [change_to(folder)] if folder not in {"", "."} else []
    if database_is_new and Path("app/auth/cli.py").exists():
        package = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
        program = PROGRAMS / next(iter(package["scripts"]))
        commands.append(f"{program} user create-admin admin admin@example.com")
    commands.append(f"{PROGRAMS / 'uvicorn'} app.main:app --reload --reload-dir app --port 8001")
    say("Next, run this and open http://localhost:8001")
    # One per line: Windows PowerShell does not support &&.
    print("", *(f"    {command}" for command in commands), sep="\n", flush=True)


def change_to(folder: str) -> str:
    """In cmd, cd stays on its drive; pushd does not, and PowerShell has it, too."""
    if not WINDOWS:
        return f"cd {shlex.quote(folder)}"
    plain = all(character.isalnum() or character in "\\/:._-" for character in folder)
    return ("pushd " if Path(folder).drive else "cd ") + (folder if plain else f'"{folder}"')


def commit_to_git() -> None:
    """Offer the first commit to a person at a terminal, and remind others of it."""
    if not shutil.which("git") or not execute("git rev-parse --is-inside-work-tree").returncode:
        return
    commands = ["git init", "git add --all", 'git commit -m "Start from the template"']
    if sys.stdin.isatty() and sys.stdout.isatty():
        try:
            answer = input("[setup] Commit the project to git? [Y/n] ").strip().casefold()
        except (EOFError, KeyboardInterrupt):
            answer = "no"
            print()
        if answer in {"", "y", "yes"}:
            failed = next((result for result in map(execute, commands) if result.returncode), None)
            if not failed:
                return say("Committed.")
            print(failed.stdout.decode("utf-8", "replace"), end="", file=sys.stderr, flush=True)
            say("git could not commit it (see above).")
    say("Before the first update, commit it in its folder: git init, git add --all, git commit")


def execute(command: str) -> subprocess.CompletedProcess[bytes]:
    # Only the fixed commands above: nothing in them comes from outside.
    return subprocess.run(  # noqa: S603
        shlex.split(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
