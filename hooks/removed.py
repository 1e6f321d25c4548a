"""Keeps what the owner changed in files that the template has renamed or no longer has.

Copier deletes such a file, the owner's changes with it. Here they move along to the new name; and a
file without one comes back as a conflict, for the owner to decide.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from repository import ANSWERS, arrived, git, last_committed, mark_conflicted, names
from revisions import VERSIONS


def keep_changed(project: Path, source: str) -> list[str]:
    """Bring back what would be lost; a sentence for each file. `source` is the template's address."""
    gone = names(project, "diff", "--name-only", "--diff-filter=D", "--relative", "HEAD")
    gone = [file for file in gone if not file.startswith(f"{VERSIONS}/")]
    if not gone:
        return []
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder, "old")
        render_committed(project, source, old)
        changed = [file for file in gone if is_changed(project, old, file)]
        moved = renamed(project, old, changed, Path(folder))
        return [
            follow(project, old, file, moved[file]) if file in moved else ask(project, old, file)
            for file in changed
        ]


def render_committed(project: Path, source: str, target: Path) -> None:
    """The project as the template made it when it was last updated, with the answers of that time."""
    answers = target.with_name("answers.yml")
    answers.write_bytes(last_committed(project, ANSWERS))
    found = re.search(r"^_commit: (\S+)$", answers.read_text("utf-8"), re.MULTILINE)
    version = ["--vcs-ref", found[1]] if found else []
    command = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", "--skip-tasks"]
    command += [*version, "--data-file", str(answers), source, str(target)]
    subprocess.run(command, cwd=project, check=True)


def is_changed(project: Path, old: Path, file: str) -> bool:
    return with_lf(last_committed(project, file)) != with_lf(content(old / file))


def content(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def with_lf(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n")


def renamed(project: Path, old: Path, gone: list[str], folder: Path) -> dict[str, str]:
    """Which file that arrived is one that is gone, as git tells a rename."""
    sides = {"before": (old, gone), "after": (project, arrived(project))}
    for side, (origin, files) in sides.items():
        (folder / side).mkdir()
        for file in files:
            (folder / side / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / side / file).write_bytes(content(origin / file))
    command = ("diff", "--no-index", "--find-renames", "--diff-filter=R", "--name-status", "-z")
    fields = iter(git(folder, *command, *sides).split("\0"))
    return {
        before.removeprefix("before/"): after.removeprefix("after/")
        for _, before, after in zip(fields, fields, fields, strict=False)
    }


def follow(project: Path, old: Path, file: str, new: str) -> str:
    """Merge the owner's changes of a file into that of its new name."""
    sides = [content(old / file), last_committed(project, file), content(project / new)]
    with tempfile.TemporaryDirectory() as folder:
        for name, side in zip(("before", "yours", "template"), sides, strict=True):
            Path(folder, name).write_bytes(with_lf(side))
        command = ["git", "merge-file", "yours", "before", "template"]
        failed = subprocess.run(command, cwd=folder, check=False).returncode
        (project / new).write_bytes(Path(folder, "yours").read_bytes())
    if failed:
        mark_conflicted(project, new, *sides)
    return f"{file} is {new} now, and your changes of it are in there"


def ask(project: Path, old: Path, file: str) -> str:
    """Bring a file back as a conflict between the owner, who changed it, and the template."""
    git(project, "checkout", "HEAD", "--", f":(literal){file}")
    mark_conflicted(project, file, content(old / file), last_committed(project, file))
    return (
        f"{file}: the template no longer has it, and you changed it: "
        "`git rm` it, or `git add` it to keep it"
    )
