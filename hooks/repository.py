"""What the hooks ask git about the project that was just updated."""

import re
import subprocess
from pathlib import Path

ANSWERS = ".copier-answers.yml"


def git(project: Path, *arguments: str) -> str:
    """What git prints; quietly nothing in a folder without commits."""
    return git_bytes(project, *arguments).decode("utf-8", "surrogateescape")


def git_bytes(project: Path, *arguments: str, given: bytes = b"") -> bytes:
    command = ["git", *arguments]
    run = subprocess.run(command, cwd=project, input=given, capture_output=True, check=False)
    return run.stdout


def names(project: Path, command: str, *arguments: str) -> list[str]:
    """The files that a git command lists, relative to the project."""
    return sorted({*git(project, command, "-z", *arguments).split("\0")} - {""})


def last_committed(project: Path, file: str) -> bytes:
    return git_bytes(project, "show", f"HEAD:./{file}")


def arrived(project: Path) -> list[str]:
    """Files that the last commit has not, and that git would not ignore."""
    return names(project, "ls-files", "--others", "--exclude-standard")


def template_version(answers: bytes) -> str:
    """The version of the template that an answers file names."""
    found = re.search(rb"^_commit: (\S+)", answers, re.MULTILINE)
    return found[1].decode() if found else "unknown"


def changed(project: Path) -> list[str]:
    """Files that differ from the last commit, or are new."""
    return names(
        project, "status", "--porcelain", "--untracked-files=all", "--no-renames", "--", "."
    )


def conflicted(project: Path) -> list[str]:
    """Files that the update could not merge."""
    unmerged = names(project, "diff", "--name-only", "--diff-filter=U", "--relative")
    # Also where git ignores them, but not those of somebody else, such as a library.
    rejected = names(project, "ls-files", "--others", "--", "*.rej")
    tracked = names(project, "ls-files") if rejected else []
    rejected = [file for file in rejected if file.removesuffix(".rej") in tracked]
    return sorted({*unmerged, *rejected})


def sides_of(project: Path, file: str) -> dict[str, bytes]:
    """Of a file in conflict: what was before, what the project has, what the template has."""
    entries = names(project, "ls-files", "--unmerged", "--", f":(literal){file}")
    numbers = {entry.split("\t")[0][-1] for entry in entries}
    return {
        side: git_bytes(project, "show", f":{number}:./{file}")
        for number, side in (("1", "before"), ("2", "yours"), ("3", "template"))
        if number in numbers
    }


def mark_conflicted(project: Path, file: str, *sides: bytes) -> None:
    """Let git call a file unmerged until its owner adds or removes it."""
    path = git(project, "rev-parse", "--show-prefix").strip() + file
    blobs = [
        git_bytes(project, "hash-object", "-w", "--stdin", given=side).decode().strip()
        for side in sides
    ]
    entries = [f"0 {'0' * len(blobs[0])}\t{path}"]
    entries += [f"100644 {blob} {number}\t{path}" for number, blob in enumerate(blobs, 1)]
    listing = "".join(f"{entry}\0" for entry in entries).encode("utf-8", "surrogateescape")
    git_bytes(project, "update-index", "-z", "--index-info", given=listing)
