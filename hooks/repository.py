"""The updated project: its git repository, its setup script, and the templates it came from and goes to."""

import functools
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ANSWERS = ".copier-answers.yml"
TEMPLATE = Path(__file__).resolve().parents[1]

WINDOWS = os.name == "nt"
SETUP_SCRIPT = ".\\setup.bat" if WINDOWS else "./setup.sh"
# What the user called the project's folder; setup prints how to change to it.
FOLDER_VARIABLE = "COPIER_FASTAPI_FOLDER"
PYTHON = ".venv/Scripts/python.exe" if WINDOWS else ".venv/bin/python"


def escape_unprintable_output() -> None:
    """On Windows, a pipe uses the old code page, which lacks most letters."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def say(*lines: str) -> None:
    for line in lines:
        print(f"[update] {line}", flush=True)


# ---- setup ------------------------------------------------------------------------------------


def run_setup(project: Path, option: str) -> bool:
    command = [*(["cmd", "/c"] if WINDOWS else ["sh"]), SETUP_SCRIPT, option]
    return subprocess.run(command, cwd=project, check=False).returncode == 0


def setup_is_skipped() -> bool:
    return os.environ.get("COPIER_FASTAPI_SETUP") == "skip"


# ---- git --------------------------------------------------------------------------------------


def git(project: Path, *arguments: str) -> str:
    """What git prints; nothing if it fails, as in a folder without commits."""
    return git_bytes(project, *arguments).decode("utf-8", "surrogateescape")


def git_bytes(project: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    command = ["git", *arguments]
    run = subprocess.run(command, cwd=project, input=stdin, capture_output=True, check=False)
    return run.stdout


def list_files(project: Path, command: str, *arguments: str) -> list[str]:
    """The files that a git command lists, relative to the project."""
    return sorted({*git(project, command, "-z", *arguments).split("\0")} - {""})


def last_committed(project: Path, file: str) -> bytes:
    return git_bytes(project, "show", f"HEAD:./{file}")


def restore(project: Path, file: str) -> None:
    """Bring back a file as it was committed."""
    git(project, "checkout", "--quiet", "HEAD", "--", f":(literal){file}")


def new_files(project: Path) -> list[str]:
    """Files that are not in the index and that git does not ignore."""
    return list_files(project, "ls-files", "--others", "--exclude-standard")


def changed_files(project: Path, kinds: str = "", folder: str = ".") -> list[str]:
    """Files of the last commit that differ now; `kinds` are those of git's --diff-filter."""
    options = [f"--diff-filter={kinds}"] if kinds else []
    return list_files(project, "diff", "--name-only", "--relative", *options, "HEAD", "--", folder)


def changed_and_new_files(project: Path) -> list[str]:
    status = ("status", "--porcelain", "--untracked-files=all", "--no-renames", "--", ".")
    return list_files(project, *status)


def conflicted_files(project: Path) -> list[str]:
    unmerged = list_files(project, "diff", "--name-only", "--diff-filter=U", "--relative")
    # Rejected hunks count even where git ignores them, but not those of, say, a library.
    rejected = list_files(project, "ls-files", "--others", "--", "*.rej")
    tracked = list_files(project, "ls-files") if rejected else []
    rejected = [file for file in rejected if file.removesuffix(".rej") in tracked]
    return sorted({*unmerged, *rejected})


def conflict_sides(project: Path, file: str) -> dict[str, bytes]:
    """Of a file that both sides changed: the common ancestor `before`, `yours` and `template`.

    Empty if one side deleted the file, or if both created one of this name.
    """
    entries = list_files(project, "ls-files", "--unmerged", "--", f":(literal){file}")
    if len(entries) < 3:
        return {}
    sides = {
        side: git_bytes(project, "show", f":{stage}:./{file}")
        for stage, side in enumerate(("before", "yours", "template"), 1)
    }
    return sides if sides["before"] else {}


def mark_conflicted(project: Path, file: str, *sides: bytes) -> None:
    """Make git report a file as unmerged until its owner adds or removes it."""
    path = git(project, "rev-parse", "--show-prefix").strip() + file
    blobs = [
        git_bytes(project, "hash-object", "-w", "--stdin", stdin=side).decode().strip()
        for side in sides
    ]
    entries = [f"0 {'0' * len(blobs[0])}\t{path}"]
    entries += [f"100644 {blob} {stage}\t{path}" for stage, blob in enumerate(blobs, 1)]
    listing = "".join(f"{entry}\0" for entry in entries).encode("utf-8", "surrogateescape")
    git_bytes(project, "update-index", "-z", "--index-info", stdin=listing)


def mark_resolved(project: Path, file: str) -> None:
    git(project, "reset", "--quiet", "--", f":(literal){file}")


def merge_text(project: Path, file: str, before: bytes, yours: bytes, template: bytes) -> None:
    """Write the three-way merge of a file; where both sides meet, git reports it as unmerged."""
    sides = {"before": before, "yours": yours, "template": template}
    with tempfile.TemporaryDirectory() as folder:
        for name, side in sides.items():
            Path(folder, name).write_bytes(with_lf(side))
        command = ["git", "merge-file", "yours", "before", "template"]
        failed = subprocess.run(command, cwd=folder, check=False).returncode
        (project / file).write_bytes(Path(folder, "yours").read_bytes())
    if failed:
        mark_conflicted(project, file, *sides.values())


def with_lf(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n")


def content(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


# ---- the template's versions ------------------------------------------------------------------


def published_address() -> str:
    """Where the template is published; empty in a copy that has not declared it."""
    text = content(TEMPLATE / "pyproject.toml").decode("utf-8")
    package = tomllib.loads(text).get("project", {})
    address = str(package.get("urls", {}).get("repository", ""))
    return "" if "/OWNER/" in address else address


def template_version(answers: bytes) -> str:
    """The version of the template that an answers file names."""
    # A commit of digits only is in quotes.
    found = re.search(rb"^_commit: '?([^\s']+)", answers, re.MULTILINE)
    return found[1].decode() if found else "unknown"


class Renders:
    """The project as the template alone makes it: `old` at the last update, `new` now."""

    def __init__(self, project: Path, source: str, folder: Path) -> None:
        self._project, self._source, self.folder = project, source, folder

    @functools.cached_property
    def old(self) -> Path:
        answers = last_committed(self._project, ANSWERS)
        version = template_version(answers)
        options = [] if version == "unknown" else ["--vcs-ref", version]
        return self._render("old", self._source, answers, *options)

    @functools.cached_property
    def new(self) -> Path:
        # Without git: this clone may lack the template's past.
        source = self.folder / "template"
        shutil.copytree(TEMPLATE, source, ignore=shutil.ignore_patterns(".git"))
        return self._render("new", str(source), (self._project / ANSWERS).read_bytes())

    def _render(self, name: str, source: str, answers: bytes, *options: str) -> Path:
        data, target = self.folder / f"{name}.yml", self.folder / name
        data.write_bytes(answers)
        command = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", "--skip-tasks"]
        subprocess.run([*command, *options, "--data-file", data, source, target], check=True)
        return target


# ---- interrupted updates ------------------------------------------------------------------------
# Copier first writes the new files and then restores the owner's changes. If it is killed in between,
# the work tree lacks those changes, and Copier asks for a commit before the next try.


def update_marker(project: Path) -> Path:
    """Holds the commit on which an unfinished update began; in git's folder, one per project."""
    folder = git(project, "rev-parse", "--show-prefix").strip().replace("/", "-")
    name = f"copier-update-{folder}".rstrip("-")
    return project / git(project, "rev-parse", "--git-path", name).strip()


def begin_update(project: Path) -> None:
    update_marker(project).write_text(git(project, "rev-parse", "HEAD"), "utf-8")


def end_update(project: Path) -> None:
    update_marker(project).unlink(missing_ok=True)


def committed_half_update(project: Path) -> str | None:
    """The commit to go back to if an interrupted update has been committed since."""
    file = update_marker(project)
    began_at = file.read_text("utf-8").strip() if file.is_file() else ""
    then = git_bytes(project, "show", f"{began_at}:./{ANSWERS}") if began_at else b""
    if then and template_version(then) != template_version(last_committed(project, ANSWERS)):
        return began_at
    return None
