"""Create a FastAPI project: `python create_project.py my_new_app`.

The template is in the folder of this script. A copy of the script elsewhere uses the published one,
unless --template or the environment variable COPIER_FASTAPI_TEMPLATE names another path or URL. The
script needs only Python 3.11 and git, and downloads Copier if it is not installed.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit(
        "create_project.py needs Python 3.11 or newer. This is Python {}.{}. "
        "Get a newer one from https://www.python.org/downloads/".format(*sys.version_info)
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
from urllib.parse import urlsplit
from urllib.request import url2pathname

# `python -m tools.address` changes it.
ADDRESS = "https://github.com/OWNER/copier-fastapi"
COPIER = "copier==9.19.1"
TEMPLATE_VARIABLE = "COPIER_FASTAPI_TEMPLATE"
YES_OR_NO = {"yes", "y", "true", "t", "on", "1", "no", "n", "false", "f", "off", "0"}
WINDOWS = os.name == "nt"
SETUP = ".\\setup.bat" if WINDOWS else "./setup.sh"
ANSWERS = ".copier-answers.yml"


class Refusal(Exception):
    """Why no project was created, in a sentence for the user."""


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0 done; 1 nothing was created; 3 created, but setup failed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # On Windows, a pipe uses a legacy code page, which lacks most characters.
            stream.reconfigure(errors="backslashreplace")
    options = parse(arguments)
    try:
        notes: list[str] = []
        template, reference = locate_template(options.template, options.vcs_ref, notes)
        folder = outside(Path(template).absolute(), options.folder)
        destination = free_destination(folder)
        copier = [*find_copier(), "copy", "--skip-tasks", "--defaults", "--quiet"]
        for answer in [f"project_name={options.name or title(destination)}", *options.data]:
            copier += ["--data", answer]
        if reference:
            copier += ["--vcs-ref", reference]
        say(f"Creating {destination} from {template}")
        render(copier, template, destination, options.data)
    except Refusal as refusal:
        print(f"create_project: {refusal}", file=sys.stderr)
        return 1
    except OSError as error:
        # For example, the disk is full, or another process has just created the same folder.
        print(f"create_project: {error}. Nothing was created.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ncreate_project: interrupted.", file=sys.stderr)
        return 130
    code = set_up(destination, folder)
    for note in [*notes, *notes_on_updates(destination)]:
        print(f"\nNOTE: {note}", flush=True)
    return code


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Create a FastAPI project in a new folder and set it up.",
    )
    parser.add_argument("folder", help="the project's folder; it must be new or empty")
    parser.add_argument(
        "--name", help="the name of the app (default: based on the name of the folder)"
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="QUESTION=ANSWER",
        help="the answer to one of the template's questions; can be repeated",
    )
    parser.add_argument(
        "--template",
        metavar="PATH_OR_URL",
        help=f"the template (default: ${TEMPLATE_VARIABLE}, or the folder of this script, or {ADDRESS})",
    )
    parser.add_argument(
        "--vcs-ref", metavar="REF", help="the version of the template (default: the latest release)"
    )
    return parser.parse_args(arguments)


def say(sentence: str) -> None:
    print(f"[create_project] {sentence}", flush=True)


def outside(template: Path, folder: str) -> str:
    """Return the folder as given, or next to the template if the command was run inside it."""
    if not Path(folder).resolve().is_relative_to(template):
        return folder
    if Path(folder).is_absolute() or ".." in Path(folder).parts or not Path(folder).name:
        raise Refusal(f"{Path(folder).resolve()} is inside the template. Choose another folder.")
    return os.path.relpath(template.parent / folder)


def free_destination(folder: str) -> Path:
    destination = Path(folder).resolve()
    try:
        # A new repository may have been cloned there.
        if destination.is_dir() and any(item.name != ".git" for item in destination.iterdir()):
            raise Refusal(
                f"{destination} is not empty. Choose another folder. Nothing was changed."
            )
        if destination.exists() and not destination.is_dir():
            raise Refusal(f"{destination} is a file. Choose another folder. Nothing was changed.")
        if any((path / ANSWERS).exists() for path in destination.parents):
            raise Refusal(f"{destination} is inside a generated project. Choose another folder.")
        parent = next(path for path in destination.parents if path.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise Refusal(f"{parent} is not a writable folder. Choose another one.")
    except OSError as error:
        raise Refusal(f"{destination} can't be used: {error.strerror}.") from None
    return destination


def title(destination: Path) -> str:
    """my_new_app → My New App."""
    words = re.sub(r"[_\s-]+", " ", destination.name).strip()
    return " ".join(word[:1].upper() + word[1:] for word in words.split(" "))


def locate_template(
    given: str | None, reference: str | None, notes: list[str]
) -> tuple[str, str | None]:
    """Return the template and its version. `copier update` needs an absolute path or a URL."""
    here = Path(__file__).resolve().parent
    place = given or os.environ.get(TEMPLATE_VARIABLE)
    if not place and (here / "copier.yml").is_file():
        place = str(here)
    if not place:
        if "/OWNER/" in ADDRESS:
            raise Refusal(
                "there is no template in the folder of this script. Pass --template PATH_OR_URL "
                f"or set the environment variable {TEMPLATE_VARIABLE}."
            )
        place = ADDRESS
    if not shutil.which("git"):
        raise Refusal(
            "git was not found. Updates of the project need it. "
            "Install git (https://git-scm.com/downloads), then run this command again."
        )
    if place.startswith("file://"):
        place = url2pathname(urlsplit(place).path)
    path = Path(place).expanduser()
    if path.exists():
        return local_template(path.resolve(), reference, notes)
    if ":" not in place.removeprefix(path.drive):
        raise Refusal(f"there is no template at {path.absolute()}.")
    return place, reference


def local_template(path: Path, reference: str | None, notes: list[str]) -> tuple[str, str | None]:
    """Use the latest commit: a project made from uncommitted files could never be updated."""
    if path.is_file():
        return str(path), reference
    if not (path / "copier.yml").is_file():
        raise Refusal(f"{path} is not a Copier template: copier.yml is missing.")
    if "dubious ownership" in git(path, "rev-parse", "HEAD", errors=True):
        raise Refusal(
            f"{path} belongs to another user, so git does not read it. If you trust its files, "
            f"run: git config --global --add safe.directory {path}"
        )
    commit = git(path, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit or git(path, "rev-parse", "--show-prefix"):
        return str(path), None
    if git(path, "rev-parse", "--is-shallow-repository") == "true":
        notes.append(
            "the template is a shallow clone. Updates fail once it no longer has this version. To "
            f'keep it, run: git -C "{path}" fetch --unshallow'
        )
    if git(path, "status", "--porcelain", "--", "copier.yml", "template", "hooks"):
        notes.append("the template has uncommitted changes. The project was created without them.")
    if reference == "HEAD" or (reference is None and not git(path, "tag")):
        reference = commit
    return str(path), reference


def git(folder: Path, *arguments: str, errors: bool = False) -> str:
    """Return the output of git, or an empty string if it fails."""
    command = ["git", "-C", str(folder), *arguments]
    # git translates its messages.
    environment = {**os.environ, "LC_ALL": "C"}
    run = subprocess.run(command, env=environment, capture_output=True, check=False)
    return (run.stderr if errors else run.stdout).decode("utf-8", "replace").strip()


def find_copier() -> list[str]:
    """Return a command that runs Copier: an installed one, else uvx or pipx, else a private one."""
    private = private_interpreter()
    # -P: a file in the current folder, such as yaml.py, is not a module.
    run_module = ["-P", "-m", "copier"]
    if copier_is_importable():
        return [sys.executable, *run_module]
    if private.exists():
        return [str(private), *run_module]
    if shutil.which("uvx"):
        return ["uvx", "--from", COPIER, "copier"]
    if shutil.which("pipx"):
        return ["pipx", "run", "--spec", COPIER, "copier"]
    make_private_environment(private)
    return [str(private), *run_module]


def copier_is_importable() -> bool:
    try:
        major, minor = map(int, importlib.metadata.version("copier").split(".")[:2])
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return (9, 19) <= (major, minor) < (10, 0)


def private_interpreter() -> Path:
    """Return the path of Python in the private environment, which is in the user's cache."""
    cache = Path.home() / ".cache"
    if WINDOWS:
        cache = Path(os.environ.get("LOCALAPPDATA", cache))
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or cache)
    name = re.sub("[^0-9a-z]+", "-", COPIER) + "-py{}.{}".format(*sys.version_info)
    interpreter = "Scripts/python.exe" if WINDOWS else "bin/python"
    return cache / "copier-fastapi" / name / interpreter


def pinned_copier(folder: Path) -> list[str]:
    """Return what pip installs: in a checkout, with the exact version of every library, too."""
    file = Path(__file__).with_name("requirements-dev.txt")
    text = file.read_text("utf-8") if file.is_file() else ""
    if COPIER not in text:
        return [COPIER]
    constraints = folder / "constraints.txt"
    # Without the hashes: pip would then require one for each library that another one needs.
    pins = re.findall(r"^[\w.-]+==[^\\\n]+", text, re.MULTILINE)
    constraints.write_text("\n".join(pins), "utf-8")
    return [COPIER, "--constraint", str(constraints)]


def make_private_environment(interpreter: Path) -> None:
    """Build it elsewhere, then rename it, so an interrupted or parallel run can't break it."""
    say("Downloading Copier (first time only) ...")
    environment = interpreter.parents[1]
    environment.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=environment.parent, ignore_cleanup_errors=True) as work:
        new = Path(work, "environment")
        if subprocess.run([sys.executable, "-P", "-m", "venv", str(new)], check=False).returncode:
            raise Refusal(
                "this Python can't create virtual environments. "
                "On Debian or Ubuntu, run: sudo apt install python3-venv"
            )
        python = str(new / interpreter.relative_to(environment))
        pip = [python, "-P", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # pip's configuration may say otherwise, which fails in a virtual environment.
        install = [*pip, "--retries", "2", *pinned_copier(Path(work))]
        if subprocess.run(install, env={**os.environ, "PIP_USER": "0"}, check=False).returncode:
            raise Refusal(
                "could not download Copier (see above). When you are online, run this again."
            )
        try:
            new.rename(environment)
        except OSError:
            if not interpreter.exists():
                raise


def render(copier: list[str], template: str, destination: Path, data: list[str]) -> None:
    """Render elsewhere, then move it into place, so the destination is never incomplete."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Keep an empty folder instead of replacing it: it may be the current directory of a shell.
    aside = destination if destination.exists() else destination.parent
    with tempfile.TemporaryDirectory(dir=aside, prefix=".create-") as work:
        new = Path(work, destination.name)
        run_copier([*copier, template, str(new)], template)
        if data:
            check_answers((new / ANSWERS).read_text("utf-8"), data)
        if aside != destination:
            new.rename(destination)
            return
        for item in new.iterdir():
            item.rename(destination / item.name)


def check_answers(recorded: str, data: list[str]) -> None:
    """Reject what Copier ignores: unknown questions, and invalid answers to yes-or-no questions."""
    for answer in data:
        name, _, value = answer.partition("=")
        found = re.search(rf"^{re.escape(name)}: (.*)$", recorded, re.M)
        if not found or name.startswith("_"):
            raise Refusal(f"the template has no question {name!r}. Nothing was created.")
        if found[1] in ("true", "false") and value.casefold() not in YES_OR_NO:
            raise Refusal(f"{name}: answer yes or no, not {value!r}. Nothing was created.")


def run_copier(command: list[str], template: str) -> None:
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if run.returncode == 0:
        return
    # Copier reports an invalid answer as a traceback. Only its last part is meant for users.
    rejected = re.search(
        r"^ValueError: Validation error for question '(\w+)': (.+)", run.stderr, re.M | re.S
    )
    if rejected:
        hint = " Choose another name with --name." if rejected[1] == "project_name" else ""
        raise Refusal(f"{rejected[1]}: {' '.join(rejected[2].split())}{hint}")
    fatal = re.search(r"^(?:.*\| )?fatal: (.+)", run.stderr, re.M)
    if fatal:
        raise Refusal(f"git could not read the template {template}: {fatal[1]}")
    print(run.stderr, file=sys.stderr)
    raise Refusal("Copier could not render the template (see above).")


def set_up(destination: Path, folder: str) -> int:
    command = [*(["cmd", "/c"] if WINDOWS else ["sh"]), SETUP, "--new"]
    # In a variable, the name needs no quotes. Setup prints how to change to the folder.
    environment = {**os.environ, "COPIER_FASTAPI_FOLDER": folder}
    try:
        run = subprocess.run(command, cwd=destination, env=environment, check=False)
        succeeded = run.returncode == 0
    except (KeyboardInterrupt, OSError) as error:
        print(f"create_project: {str(error) or 'interrupted'}", file=sys.stderr)
        succeeded = False
    if not succeeded:
        print(
            f"create_project: setup failed (see above). The project's files are complete. "
            f"To finish, fix the problem and run {SETUP} in {destination}.",
            file=sys.stderr,
        )
        return 3
    return 0


def notes_on_updates(project: Path) -> list[str]:
    """Return what prevents later updates, and what to do. The hook says the same."""
    answers = (project / ANSWERS).read_text("utf-8")
    if not re.search(r"^_commit: ", answers, re.M):
        return [
            "this project can't be updated later, because its template has no git history. For a "
            "project that can, create it from a git clone or a URL."
        ]
    if (project / ".github").is_dir() and not re.search(r"^_src_path: '?\w{2,}[:@]", answers, re.M):
        address = "the URL of the template" if "/OWNER/" in ADDRESS else ADDRESS
        return [
            "GitHub can't reach a template on this computer. Before you push the project, change "
            f"_src_path in {ANSWERS} to {address}."
        ]
    return []


if __name__ == "__main__":
    sys.exit(main())
