"""Merges what an owner and the template added in the same place of a shared file.

A new router stands beside other routers: when the next release has one too, git calls it a
conflict. In the files where both add lines by design, both are kept.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from revisions import git

MARK = re.compile(r"(<{7}|\|{7}|={7}|>{7})( .*)?\r?\n?")


def merge_seams(project: Path, shared: list[str]) -> list[str]:
    """Mend the conflicts of these files in which one side only added lines; which files those are."""
    return [file for file in conflicted(project) if file in shared and mend(project, file)]


def conflicted(project: Path) -> list[str]:
    """Files, relative to the project, that the update could not merge."""
    unmerged = git(project, "diff", "--name-only", "--diff-filter=U", "--relative", "-z")
    rejected = git(project, "ls-files", "--others", "--exclude-standard", "-z", "*.rej")
    return sorted({*unmerged.split("\0"), *rejected.split("\0")} - {""})


def mend(project: Path, file: str) -> bool:
    """Whether every conflict of a file could be mended; otherwise it stays as it is."""
    merged = []
    for part in three_ways(project, file):
        if len(part) == 1:
            merged += part[0]
            continue
        both = with_both(*part)
        if both is None:
            return False
        merged += both
    with (project / file).open("w", encoding="utf-8", newline="") as target:
        target.writelines(merged)
    git(project, "reset", "--quiet", "--", file)
    return True


def three_ways(project: Path, file: str) -> Iterator[list[list[str]]]:
    """The file in parts: lines that are merged, or (ours, before, theirs) where they are not."""
    names = ("ours", "before", "theirs")
    with tempfile.TemporaryDirectory() as folder:
        for stage, name in zip((2, 1, 3), names, strict=True):
            Path(folder, name).write_bytes(git(project, "show", f":{stage}:./{file}").encode())
        command = ["git", "merge-file", "-p", "--diff3", *names]
        run = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    part: list[list[str]] = [[]]
    for line in run.stdout.decode("utf-8").splitlines(keepends=True):
        mark = MARK.fullmatch(line)
        if mark is None:
            part[-1].append(line)
        elif mark[1] in {"<<<<<<<", ">>>>>>>"}:
            yield part
            part = [[]]
        else:
            part.append([])
    yield part


def with_both(ours: list[str], before: list[str], theirs: list[str]) -> list[str] | None:
    """What both made of the lines before; None unless one side left those alone and added others."""
    for added, other in ((ours, theirs), (theirs, ours)):
        count = len(before)
        if added[:count] == before:
            return in_order(other + added[count:])
        if added[len(added) - count :] == before:
            return in_order(added[: len(added) - count] + other)
    return None


def in_order(lines: list[str]) -> list[str]:
    return sorted(lines) if all(line.startswith("from ") for line in lines) else lines
