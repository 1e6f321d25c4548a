"""Merges files to which both the owner and the template add lines.

If both add a router next to another one, git reports a conflict. In these files, additions of both
are kept unless both add the same name, and of two raised versions of a library, the newer wins.
"""

import ast
import difflib
import re
import subprocess
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from repository import (
    changed_files,
    conflict_sides,
    conflicted_files,
    last_committed,
    mark_resolved,
)

# Which lines of a text become which: from, up to but not including, which side, the new lines.
Change = tuple[int, int, str, list[str]]

# In these, each line stands for itself.
LINE_LISTS = (".env.example", ".gitignore")

# Its hashes belong to a version: lines can't be merged, libraries can.
LOCK = "requirements.txt"

# Longer than git's own, which could occur in a text.
MARKER_SIZE = 40
MARKER = re.compile(rf"([<|=>])\1{{{MARKER_SIZE - 1}}}( .*)?\r?\n?")


def union_merge(project: Path, shared: list[str]) -> list[str]:
    """Resolve conflicts in these files and folders where no line was changed by both; which files."""
    return [
        file
        for file in conflicted_files(project)
        if any(is_below(file, place) for place in [*shared, *LINE_LISTS, LOCK])
        and resolve(project, file)
    ]


def is_below(file: str, place: str) -> bool:
    return f"{file}/".startswith(f"{place}/")


def resolve(project: Path, file: str) -> bool:
    """Whether every conflict of a file could be resolved; otherwise it stays as it is."""
    sides = conflict_sides(project, file)
    if not sides:
        return False
    if file == LOCK:
        merged_lock = merge_libraries(sides)
        return merged_lock is not None and save(project, file, merged_lock)
    parts = [merge_part(part) for part in three_way_parts(newer_versions(sides))]
    if None in parts:
        return False
    merged = "".join(line for part in parts for line in part or [])
    texts = [sides[side].decode("utf-8", "surrogateescape") for side in ("yours", "template")]
    if not is_sound(file, merged) or duplicate_names(file, merged, *texts):
        return False
    return save(project, file, merged)


def save(project: Path, file: str, merged: str) -> bool:
    (project / file).write_bytes(merged.encode("utf-8", "surrogateescape"))
    mark_resolved(project, file)
    return True


def merge_part(part: list[list[str]]) -> list[str] | None:
    if len(part) == 1:
        return part[0]
    return with_both(*part) if len(part) == 3 else None


def three_way_parts(sides: dict[str, bytes]) -> Iterator[list[list[str]]]:
    """The file in parts: lines that are merged, or (yours, before, template) where they are not."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in sides.items():
            Path(folder, name).write_bytes(text)
        command = ["git", "merge-file", "-p", "--diff3", f"--marker-size={MARKER_SIZE}"]
        command += ["yours", "before", "template"]
        run = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    part: list[list[str]] = [[]]
    for line in run.stdout.decode("utf-8", "surrogateescape").splitlines(keepends=True):
        marker = MARKER.fullmatch(line)
        if marker is None:
            part[-1].append(line)
        elif marker[1] in "<>":
            yield part
            part = [[]]
        else:
            part.append([])
    yield part


def with_both(yours: list[str], before: list[str], template: list[str]) -> list[str] | None:
    """The changes of both, the template's first where both add.

    Finer than git, which reports a conflict for neighboring lines. None if both change the same
    lines, or add the same name: a setting, a library, a function.
    """
    theirs, ours = [*changes(before, template, "template")], [*changes(before, yours, "yours")]
    if added_names(theirs, before) & added_names(ours, before):
        return None
    merged: list[str] = []
    done = 0
    for start, end, _, lines in sorted([*theirs, *ours]):
        if start < done:
            return None
        merged += before[done:start] + lines
        done = end
    merged += before[done:]
    return sorted(merged) if all(line.startswith("from ") for line in merged) else merged


def changes(before: list[str], after: list[str], side: str) -> Iterator[Change]:
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, start, end, first, last in matcher.get_opcodes():
        if kind != "equal":
            yield start, end, side, after[first:last]


# ---- version pins -----------------------------------------------------------------------------

# `fastapi==0.165.0`, `"fastapi>=0.165"`, and an action: `actions/checkout@<commit> # v7.0.1`.
PIN = re.compile(
    rb"(?<![\w.-])(?P<name>[\w.-]+(?:\[[\w,-]+\])?[=>]=|[\w.-]+/[\w./-]+@)"
    rb"(?P<version>[0-9a-f]{40} # v[\w.]+|\d[\w.]*)"
)


def newer_versions(sides: dict[str, bytes]) -> dict[str, bytes]:
    """The sides of a conflict, with the newer version in both where both have raised it."""
    before, yours, template = (
        version_pins(sides[side]) for side in ("before", "yours", "template")
    )
    raised = {
        name: max(yours[name], template[name], key=version_order)
        for name in yours.keys() & template.keys() & before.keys()
        # A version that is held back stays a conflict.
        if version_order(before[name])
        < min(version_order(yours[name]), version_order(template[name]))
    }

    def raise_pin(pin: re.Match[bytes]) -> bytes:
        return pin["name"] + raised.get(pin["name"], pin["version"])

    return {
        "before": sides["before"],
        "yours": PIN.sub(raise_pin, sides["yours"]),
        "template": PIN.sub(raise_pin, sides["template"]),
    }


def version_pins(text: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for pin in PIN.finditer(text):
        known = found.setdefault(pin["name"], pin["version"])
        found[pin["name"]] = max(known, pin["version"], key=version_order)
    return found


def version_order(version: bytes) -> list[int]:
    """A commit is as new as the version in its comment."""
    return [int(number) for number in re.findall(rb"\d+", version.split(b" # v")[-1])]


def merge_libraries(sides: dict[str, bytes]) -> str | None:
    """The libraries of both, each with its hashes; of two raised versions, the newer."""
    before, yours, template = (libraries(sides[side]) for side in ("before", "yours", "template"))
    merged = b""
    for name in sorted(yours.keys() | template.keys()):
        old, mine, theirs = (side.get(name, b"") for side in (before, yours, template))
        if mine == theirs or old == theirs:
            merged += mine
        elif old == mine:
            merged += theirs
        else:
            first, last = sorted((mine, theirs), key=pinned_version)
            if old and first and pinned_version(first) < pinned_version(old):
                # A version that is held back stays a conflict.
                return None
            merged += last
    return merged.decode("utf-8", "surrogateescape")


def libraries(text: bytes) -> dict[bytes, bytes]:
    """The lines of each library in a file with hashes; before them, those of the comment."""
    found: dict[bytes, bytes] = {}
    for lines in re.split(rb"^(?=\S)", text, flags=re.MULTILINE):
        name = re.split(rb"[^\w.-]", lines, maxsplit=1)[0]
        found[name] = found.get(name, b"") + lines
    return found


def pinned_version(lines: bytes) -> list[int]:
    pin = PIN.search(lines)
    return version_order(pin["version"]) if pin else []


# ---- names that a text defines ----------------------------------------------------------------

# What a line defines: a function, a class, a table, an entry of a list or mapping, a key or setting.
DEFINITION = re.compile(
    r"(?:async )?(?:def|class) (?P<code>\w+)"
    r"|(?P<table>\[[^][]+\])$"
    r"|[\"'](?P<text>[^\"'<>=!~\[; ]+)"
    r"|(?P<key>[\w.-]+)(?:\[[\w,-]+\])?\s*(?::|[=<>~!]?=|[<>]|$)"
)


def added_names(changes: list[Change], before: list[str]) -> set[str]:
    """What these changes define, at the outermost level of each, that was not defined before."""
    found = {name for _, _, _, lines in changes for name in defined_names(lines)}
    return found - {name for line in before for name in defined_names([line])}


def defined_names(lines: list[str]) -> Iterator[str]:
    code = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    outermost = min((indentation(line) for line in code), default=0)
    for line in code:
        found = DEFINITION.match(line.strip())
        if found and indentation(line) == outermost:
            # The name of a library can be spelled in several ways (PEP 503).
            yield re.sub(r"[-_.]+", "-", next(name for name in found.groups() if name)).casefold()


def indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def is_sound(file: str, text: str) -> bool:
    """Whether the merged text still is what its file name says."""
    try:
        if file.endswith(".toml"):
            tomllib.loads(text)
        if file.endswith(".py"):
            ast.parse(text)
    except (SyntaxError, ValueError):
        # Not what the name says, or not UTF-8.
        return False
    return True


def describe_duplicate_names(project: Path, shared: list[str]) -> list[str]:
    """Sentences about names that both sides added in two places, where git sees no conflict."""
    sentences = []
    for file in changed_files(project):
        if any(is_below(file, place) for place in shared) and (project / file).is_file():
            now, before = (project / file).read_bytes(), last_committed(project, file)
            texts = [text.decode("utf-8", "replace") for text in (now, before)]
            sentences += [
                f"{file}: both you and the template define {name}; keep one of the two"
                for name in sorted(duplicate_names(file, *texts))
            ]
    return sentences


def duplicate_names(file: str, merged: str, *sides: str) -> set[str]:
    """Names that the merged Python text binds more than once in a scope, and more often than a side."""
    if not file.endswith(".py"):
        return set()
    try:
        now, *before = (Counter(bindings(ast.parse(text))) for text in (merged, *sides))
    except SyntaxError:
        return set()
    return {
        name
        for name, times in now.items()
        if times > 1 and all(times > counts[name] for counts in before)
    }


def bindings(scope: ast.AST, prefix: str = "") -> Iterator[str]:
    """Functions, classes, imports, annotated names and constants, as often as a scope binds each."""
    for node in getattr(scope, "body", []):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if not shares_its_name(node):
                yield f"{prefix}{node.name}"
            case ast.ClassDef():
                yield f"{prefix}{node.name}"
                yield from bindings(node, f"{prefix}{node.name}.")
            case ast.Import() | ast.ImportFrom():
                yield from (f"{prefix}{alias.asname or alias.name}" for alias in node.names)
            case ast.AnnAssign(ast.Name(name)) | ast.Assign([ast.Name(name)]):
                yield f"{prefix}{name}"


def shares_its_name(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether several definitions of one name are intended: a property's setter, say, or an overload."""
    several = {"deleter", "getter", "overload", "register", "setter"}
    return any(
        getattr(part, "attr", getattr(part, "id", "")) in several
        for decorator in function.decorator_list
        for part in ast.walk(decorator)
    )
