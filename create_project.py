"""Creates a FastAPI project from the template beside this file: `python create_project.py my_new_app`.

One file, standard library only: it works when copied elsewhere, with --template PATH_OR_URL or the
environment variable COPIER_FASTAPI_TEMPLATE. It needs Python 3.11 and git, and fetches Copier,
which does the work, if it is not there.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit(
        "create_project.py needs Python 3.11 or newer, and this is {}.{}. "
        "Get one from https://www.python.org/downloads/".format(*sys.version_info)
    )

import argparse
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

COPIER = "copier>=9.19,<10"
TEMPLATE_VARIABLE = "COPIER_FASTAPI_TEMPLATE"
YES_OR_NO = {"yes", "y", "true", "t", "on", "1", "no", "n", "false", "f", "off", "0"}
WINDOWS = os.name == "nt"
SET_UP = ".\\setup.bat" if WINDOWS else "./setup.sh"


class Refusal(Exception):
    """Why there is no project, in a sentence for the person."""


def main(arguments: list[str] | None = None) -> int:
    """Create the project. Exit codes: 0 done; 1 nothing was created; 3 created, but not set up."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # On Windows a pipe has the old code page, which lacks most of the world's letters.
            stream.reconfigure(errors="backslashreplace")
    options = parse(arguments)
    try:
        destination = free_destination(options.folder)
        template, reference = locate_template(options.template, options.vcs_ref)
        if destination.is_relative_to(Path(template, "template")):
            raise Refusal(f"{destination} is inside the template itself: choose another folder.")
        copier = [*find_copier(), "copy", "--skip-tasks", "--defaults", "--quiet"]
        for answer in [f"project_name={options.name or title(destination)}", *options.data]:
            copier += ["--data", answer]
        if reference:
            copier += ["--vcs-ref", reference]
        say(f"Rendering {template} ...")
        render(copier, template, destination, options.data)
    except Refusal as refusal:
        print(f"create_project: {refusal}", file=sys.stderr)
        return 1
    except OSError as error:
        # A full disk, or somebody who made the same folder meanwhile.
        print(f"create_project: {error}. Nothing was created.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ncreate_project: stopped.", file=sys.stderr)
        return 130
    return set_up(destination)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Create a FastAPI project in a new folder and set it up.",
    )
    parser.add_argument("folder", help="where to create it; the folder must not exist or be empty")
    parser.add_argument("--name", help="what the app is called (default: from the folder's name)")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="QUESTION=ANSWER",
        help="an answer to a question of the template; may be given again",
    )
    parser.add_argument(
        "--template",
        metavar="PATH_OR_URL",
        help=f"where the template is (default: {TEMPLATE_VARIABLE}, else this file's folder)",
    )
    parser.add_argument(
        "--vcs-ref", metavar="REF", help="which version of it (default: the newest release)"
    )
    return parser.parse_args(arguments)


def say(sentence: str) -> None:
    print(f"[create_project] {sentence}", flush=True)


def free_destination(folder: str) -> Path:
    destination = Path(folder).resolve()
    try:
        if destination.is_dir() and any(destination.iterdir()):
            raise Refusal(
                f"{destination} is not empty: choose another folder. Nothing was changed."
            )
        if destination.exists() and not destination.is_dir():
            raise Refusal(f"{destination} is a file: choose another folder. Nothing was changed.")
        if any((path / ".copier-answers.yml").exists() for path in destination.parents):
            raise Refusal(f"{destination} is inside a generated project: choose another folder.")
        parent = next(path for path in destination.parents if path.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise Refusal(f"{parent} can't be written to: choose another folder.")
    except OSError as error:
        raise Refusal(f"{destination} can't be used: {error.strerror}.") from None
    return destination


def title(destination: Path) -> str:
    """my_new_app → My New App."""
    words = re.sub(r"[_\s-]+", " ", destination.name).strip()
    return " ".join(word[:1].upper() + word[1:] for word in words.split(" "))


def locate_template(given: str | None, reference: str | None) -> tuple[str, str | None]:
    """An absolute path or a URL, which `copier update` will find again, and a version of it."""
    here = Path(__file__).resolve().parent
    place = given or os.environ.get(TEMPLATE_VARIABLE)
    if not place:
        if not (here / "copier.yml").is_file():
            raise Refusal(
                "the template is not beside this file: say where it is with "
                f"--template PATH_OR_URL or in {TEMPLATE_VARIABLE}."
            )
        place = str(here)
    if not shutil.which("git"):
        raise Refusal(
            "git was not found. Without it the project could never be updated: "
            "install it (https://git-scm.com/downloads), then run this again."
        )
    path = Path(place).expanduser()
    if path.exists():
        return local_template(path.resolve(), reference)
    if ":" not in place:
        raise Refusal(f"there is no template at {path.absolute()}.")
    return place, reference


def local_template(path: Path, reference: str | None) -> tuple[str, str | None]:
    """Prefer what is committed: a project made from uncommitted files could never be updated."""
    if path.is_file():
        return str(path), reference
    if not (path / "copier.yml").is_file():
        raise Refusal(f"{path} is not a Copier template: it has no copier.yml.")
    commit = git(path, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit or git(path, "rev-parse", "--show-prefix"):
        say("WARNING: the template has no git history, so this project can't be updated later.")
        return str(path), None
    if git(path, "rev-parse", "--is-shallow-repository") == "true":
        say(
            "WARNING: the template is a shallow clone, which forgets this version once it is updated; "
            f"without it, updates fail. Fetch its history: git -C {path} fetch --unshallow"
        )
    if git(path, "status", "--porcelain", "--", "copier.yml", "template", "hooks"):
        say("WARNING: the template has uncommitted changes; the project is made without them.")
    if reference == "HEAD" or (reference is None and not git(path, "tag")):
        reference = commit
    return str(path), reference


def git(folder: Path, *arguments: str) -> str:
    """What git prints, or nothing if it fails."""
    command = ["git", "-C", str(folder), *arguments]
    run = subprocess.run(command, capture_output=True, check=False)
    return run.stdout.decode("utf-8", "replace").strip()


def find_copier() -> list[str]:
    """A command that starts Copier: what is there already, else uvx or pipx, else a private copy."""
    private = private_interpreter()
    if copier_is_importable():
        return [sys.executable, "-m", "copier"]
    if private.exists():
        return [str(private), "-m", "copier"]
    if shutil.which("uvx"):
        return ["uvx", "--from", COPIER, "copier"]
    if shutil.which("pipx"):
        return ["pipx", "run", "--spec", COPIER, "copier"]
    make_private_environment(private)
    return [str(private), "-m", "copier"]


def copier_is_importable() -> bool:
    try:
        major, minor = map(int, importlib.metadata.version("copier").split(".")[:2])
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return (9, 19) <= (major, minor) < (10, 0)


def private_interpreter() -> Path:
    """The Python of the environment in the user's cache that has this Copier, once it is made."""
    cache = Path.home() / ".cache"
    if WINDOWS:
        cache = Path(os.environ.get("LOCALAPPDATA", cache))
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or cache)
    name = re.sub("[^0-9a-z]+", "-", COPIER) + "-py{}.{}".format(*sys.version_info)
    interpreter = "Scripts/python.exe" if WINDOWS else "bin/python"
    return cache / "copier-fastapi" / name / interpreter


def make_private_environment(interpreter: Path) -> None:
    """Made aside and moved into place whole: being killed, or two at once, leaves no half one."""
    say("Fetching Copier, once ...")
    environment = interpreter.parents[1]
    environment.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=environment.parent, ignore_cleanup_errors=True) as work:
        new = Path(work, "environment")
        if subprocess.run([sys.executable, "-m", "venv", str(new)], check=False).returncode:
            raise Refusal(
                "this Python can't create environments. "
                "On Debian or Ubuntu: sudo apt install python3-venv"
            )
        python = str(new / interpreter.relative_to(environment))
        pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "2"]
        if subprocess.run([*pip, COPIER], check=False).returncode:
            raise Refusal("Copier could not be fetched. Once the network is there, run this again.")
        try:
            new.rename(environment)
        except OSError:
            if not interpreter.exists():
                raise


def render(copier: list[str], template: str, destination: Path, data: list[str]) -> None:
    """Render aside and move into place whole, so that nothing half-made is ever left there."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    # An empty folder stays the one it is: somebody may be in it.
    aside = destination if destination.exists() else destination.parent
    with tempfile.TemporaryDirectory(dir=aside, prefix=".create-") as work:
        new = Path(work, destination.name)
        run_copier([*copier, template, str(new)])
        if data:
            check_answers((new / ".copier-answers.yml").read_text("utf-8"), data)
        if aside != destination:
            new.rename(destination)
            return
        for item in new.iterdir():
            item.rename(destination / item.name)


def check_answers(taken: str, data: list[str]) -> None:
    """Refuse what Copier takes without a word: unknown questions, and any word for a yes."""
    for answer in data:
        name, _, value = answer.partition("=")
        found = re.search(rf"^{re.escape(name)}: (.*)$", taken, re.M)
        if not found or name.startswith("_"):
            raise Refusal(f"the template has no question {name}. Nothing was created.")
        if found[1] in ("true", "false") and value.casefold() not in YES_OR_NO:
            raise Refusal(f"{name}: write yes or no, not {value!r}. Nothing was created.")


def run_copier(command: list[str]) -> None:
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if run.returncode == 0:
        return
    # Copier reports an answer that a question refuses as a traceback; its end is for people.
    refused = re.search(
        r"^ValueError: Validation error for question '(\w+)': (.+)", run.stderr, re.M | re.S
    )
    if refused:
        hint = " Give another one with --name." if refused[1] == "project_name" else ""
        raise Refusal(f"{refused[1]}: {' '.join(refused[2].split())}{hint}")
    print(run.stderr, file=sys.stderr)
    raise Refusal("Copier could not render the template; it says why above.")


def set_up(destination: Path) -> int:
    command = ["cmd", "/c", SET_UP] if WINDOWS else ["sh", SET_UP]
    try:
        succeeded = subprocess.run(command, cwd=destination, check=False).returncode == 0
    except (KeyboardInterrupt, OSError) as error:
        print(f"create_project: {str(error) or 'stopped'}", file=sys.stderr)
        succeeded = False
    if not succeeded:
        print(
            f"create_project: the project is complete in {destination}, but not set up; the reason "
            f"stands above. Run {SET_UP} there when it is gone.",
            file=sys.stderr,
        )
        return 3
    uvicorn = ".venv\\Scripts\\uvicorn" if WINDOWS else ".venv/bin/uvicorn"
    say(f"{destination} is ready. Next:\n")
    print(f'    cd "{destination}"\n    {uvicorn} app.main:app --reload --port 8001\n')
    print("Template updates need a history to merge into. Keep one from the start:\n")
    # A line each: the PowerShell that comes with Windows knows no &&.
    for step in ("init", "add --all", 'commit -m "Start from the template"'):
        print(f"    git {step}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
