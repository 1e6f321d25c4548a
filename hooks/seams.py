"""Merges what an owner and the template added in the same place of a shared file.

A new router stands beside other routers: when the next release has one too, git calls it a
conflict. In the files where both add lines by design, both are kept.
"""

import difflib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pins import agree
from repository import conflicted, git, sides_of

# Which lines of a text become which: from, up to but not including, by whom, the new lines.
Change = tuple[int, int, str, list[str]]

MARK = re.compile(r"(<{7}|\|{7}|={7}|>{7})( .*)?\r?\n?")


def merge_seams(project: Path, shared: list[str]) -> list[str]:
    """Mend conflicts in these files and folders where no line was changed by both; which files."""
    return [
        file
        for file in conflicted(project)
        if any(is_below(file, place) for place in shared) and mend(project, file)
    ]


def is_below(file: str, place: str) -> bool:
    return f"{file}/".startswith(f"{place}/")


def mend(project: Path, file: str) -> bool:
    """Whether every conflict of a file could be mended; otherwise it stays as it is."""
    sides = sides_of(project, file)
    if len(sides) < 3:
        return False
    merged = []
    for part in three_ways(agree(sides)):
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


def three_ways(sides: dict[str, bytes]) -> Iterator[list[list[str]]]:
    """The file in parts: lines that are merged, or (yours, before, template) where they are not."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in sides.items():
            Path(folder, name).write_bytes(text)
        command = ["git", "merge-file", "-p", "--diff3", "yours", "before", "template"]
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


def with_both(yours: list[str], before: list[str], template: list[str]) -> list[str] | None:
    """The changes of both, the template's first where both add; None if they change the same lines.

    Finer than git, to which changes of neighbouring lines are a conflict.
    """
    merged: list[str] = []
    done = 0
    for start, end, _, lines in sorted(
        [*changes(before, template, "template"), *changes(before, yours, "yours")]
    ):
        if start < done:
            return None
        merged += before[done:start] + lines
        done = end
    return in_order(merged + before[done:])


def changes(before: list[str], after: list[str], side: str) -> Iterator[Change]:
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, start, end, first, last in matcher.get_opcodes():
        if kind != "equal":
            yield start, end, side, after[first:last]


def in_order(lines: list[str]) -> list[str]:
    return sorted(lines) if all(line.startswith("from ") for line in lines) else lines
