"""Three-way merges where Copier makes none: a file is in another place on one of the sides."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from repository import ANSWERS, git, last_committed, mark_conflicted

TEMPLATE = Path(__file__).resolve().parents[1]


def render_committed(project: Path, source: str, target: Path) -> None:
    """The project as the template made it when it was last updated, with the answers of that time."""
    answers = last_committed(project, ANSWERS)
    found = re.search(rb"^_commit: (\S+)$", answers, re.MULTILINE)
    render(source, answers, target, *(["--vcs-ref", found[1].decode()] if found else []))


def render_arrived(project: Path, target: Path) -> None:
    """The project as the template makes it now; without git, which may lack the template's past."""
    source = target.with_name("template")
    shutil.copytree(TEMPLATE, source, ignore=shutil.ignore_patterns(".git"))
    render(str(source), (project / ANSWERS).read_bytes(), target)


def render(source: str, answers: bytes, target: Path, *version: str) -> None:
    data = target.with_name("answers.yml")
    data.write_bytes(answers)
    command = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", "--skip-tasks"]
    subprocess.run([*command, *version, "--data-file", data, source, target], check=True)


def content(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def with_lf(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n")


def renamed(
    before: tuple[Path, list[str]], after: tuple[Path, list[str]], folder: Path
) -> dict[str, str]:
    """Which file of one root is which of another, as git tells a rename."""
    for side, (root, files) in {"before": before, "after": after}.items():
        (folder / side).mkdir()
        for file in files:
            (folder / side / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / side / file).write_bytes(content(root / file))
    command = ("diff", "--no-index", "--find-renames", "--diff-filter=R", "--name-status", "-z")
    fields = iter(git(folder, *command, "before", "after").split("\0"))
    return {
        old.removeprefix("before/"): new.removeprefix("after/")
        for _, old, new in zip(fields, fields, fields, strict=False)
    }


def merge(project: Path, file: str, before: bytes, yours: bytes, template: bytes) -> None:
    """Write what both sides made of a file; where they meet, git calls it unmerged."""
    sides = {"before": before, "yours": yours, "template": template}
    with tempfile.TemporaryDirectory() as folder:
        for name, side in sides.items():
            Path(folder, name).write_bytes(with_lf(side))
        command = ["git", "merge-file", "yours", "before", "template"]
        failed = subprocess.run(command, cwd=folder, check=False).returncode
        (project / file).write_bytes(Path(folder, "yours").read_bytes())
    if failed:
        mark_conflicted(project, file, *sides.values())
