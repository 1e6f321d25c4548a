"""Merges what an owner and the template added in the same place of a shared file.

A new router stands beside other routers: when the next release has one too, git calls it a
conflict. In the files where both add lines by design, both are kept, unless both add the same thing.
"""

import difflib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from definitions import defined, is_sound, twice_bound
from libraries import agree
from repository import conflicted, git, last_committed, names, sides_of

# Which lines of a text become which: from, up to but not including, by whom, the new lines.
Change = tuple[int, int, str, list[str]]

# Longer than git's own, which could stand in a text.
MARKER_SIZE = 40
MARK = re.compile(rf"([<|=>])\1{{{MARKER_SIZE - 1}}}( .*)?\r?\n?")


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
    if len(sides) < 3 or not sides["before"]:
        # Both made a file of this name: neither is a part of the other.
        return False
    try:
        parts = [merge_part(part) for part in three_ways(agree(sides))]
    except UnicodeDecodeError:
        return False
    if None in parts:
        return False
    merged = "".join(line for part in parts for line in part or [])
    texts = [sides[side].decode("utf-8") for side in ("yours", "template")]
    if not is_sound(file, merged) or twice_bound(file, merged, *texts):
        return False
    with (project / file).open("w", encoding="utf-8", newline="") as target:
        target.write(merged)
    git(project, "reset", "--quiet", "--", f":(literal){file}")
    return True


def merge_part(part: list[list[str]]) -> list[str] | None:
    if len(part) == 1:
        return part[0]
    return with_both(*part) if len(part) == 3 else None


def doubled(project: Path, shared: list[str]) -> list[str]:
    """What both added in two places of one shared file, where git sees no conflict; a sentence for each."""
    said = []
    for file in names(project, "diff", "--name-only", "--relative", "HEAD"):
        if any(is_below(file, place) for place in shared) and (project / file).is_file():
            now, before = (project / file).read_bytes(), last_committed(project, file)
            texts = [text.decode("utf-8", "replace") for text in (now, before)]
            said += [
                f"{file}: {name} is there twice, yours and the template's: keep one"
                for name in sorted(twice_bound(file, *texts))
            ]
    return said


def three_ways(sides: dict[str, bytes]) -> Iterator[list[list[str]]]:
    """The file in parts: lines that are merged, or (yours, before, template) where they are not."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in sides.items():
            Path(folder, name).write_bytes(text)
        command = ["git", "merge-file", "-p", "--diff3", f"--marker-size={MARKER_SIZE}"]
        command += ["yours", "before", "template"]
        run = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    part: list[list[str]] = [[]]
    for line in run.stdout.decode("utf-8").splitlines(keepends=True):
        mark = MARK.fullmatch(line)
        if mark is None:
            part[-1].append(line)
        elif mark[1] in "<>":
            yield part
            part = [[]]
        else:
            part.append([])
    yield part


def with_both(yours: list[str], before: list[str], template: list[str]) -> list[str] | None:
    """The changes of both, the template's first where both add.

    Finer than git, to which changes of neighbouring lines are a conflict. None if they change the
    same lines, or add the same thing: a setting, a library, a function of one name.
    """
    theirs, ours = [*changes(before, template, "template")], [*changes(before, yours, "yours")]
    if added(theirs, before) & added(ours, before):
        return None
    merged: list[str] = []
    done = 0
    for start, end, _, lines in sorted([*theirs, *ours]):
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


def added(changes: list[Change], before: list[str]) -> set[str]:
    """What these changes define, at the outermost level of each, that was not defined before."""
    found = {name for _, _, _, lines in changes for name in defined(lines)}
    return found - {name for line in before for name in defined([line])}


def in_order(lines: list[str]) -> list[str]:
    return sorted(lines) if all(line.startswith("from ") for line in lines) else lines
