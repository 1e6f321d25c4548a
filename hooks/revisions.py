"""Puts migrations that arrived with an update behind those that the project has.

The template's next migration follows the template's last one, and so does the first that an owner
wrote: two heads, which Alembic refuses. What is committed may have run in production and is never
changed. What just arrived has run nowhere, so it moves.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from repository import git, names

VERSIONS = "alembic/versions"


class UndecidedError(Exception):
    """Why nothing was moved, in a sentence that says what to do."""


@dataclass(frozen=True)
class Revision:
    file: str
    text: str
    name: str
    parents: tuple[str, ...]


def read_revision(file: str, text: str) -> Revision | None:
    """None for a file that holds no revision, or can't be read: Alembic will say so."""
    try:
        values = {
            target.id: ast.literal_eval(value)
            for target, value in assignments(text)
            if target.id in {"revision", "down_revision"}
        }
        name, parents = values["revision"], values["down_revision"]
    except (SyntaxError, ValueError, KeyError):
        return None
    return Revision(file, text, name, (parents,) if isinstance(parents, str) else parents or ())


def assignments(text: str) -> list[tuple[ast.Name, ast.expr]]:
    """`name = value` and `name: type = value`, at the top level of a module."""
    found = []
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        value = getattr(node, "value", None)
        found += [(t, value) for t in targets if isinstance(t, ast.Name) and value is not None]
    return found


def committed(project: Path) -> dict[str, Revision]:
    """The revisions that the last commit has, by name."""
    listing = names(project, "ls-tree", "-r", "--name-only", "HEAD", VERSIONS)
    files = [file for file in listing if file.endswith(".py")]
    return by_name((file, git(project, "show", f"HEAD:./{file}")) for file in files)


def present(project: Path) -> dict[str, Revision]:
    files = sorted((project / VERSIONS).glob("*.py"))
    return by_name((f"{VERSIONS}/{file.name}", read(file)) for file in files)


def by_name(files: Iterable[tuple[str, str]]) -> dict[str, Revision]:
    revisions = (read_revision(file, text) for file, text in files)
    return {revision.name: revision for revision in revisions if revision}


def heads(revisions: Iterable[Revision]) -> list[str]:
    """Those that no other one follows."""
    revisions = list(revisions)
    followed = {parent for revision in revisions for parent in revision.parents}
    return sorted(revision.name for revision in revisions if revision.name not in followed)


def restore_committed(project: Path) -> list[str]:
    """Bring back the revisions that an update took away with an option; a sentence for each."""
    there = present(project)
    gone = [revision for name, revision in committed(project).items() if name not in there]
    for revision in gone:
        write(project / revision.file, revision.text)
    return [
        f"migrations: {revision.name} stays, since your database has it, and so do its tables and "
        'rows; `alembic revision -m "drop" --autogenerate` makes a migration that drops them'
        for revision in gone
    ]


def reparent(project: Path) -> list[str]:
    """Move the revisions that arrived behind the one head of those that are committed.

    Returns a sentence for each that moved; run again, there is nothing left to move. Raises
    UndecidedError if there are two places where they could go.
    """
    settled = committed(project)
    arrived = {name: r for name, r in present(project).items() if name not in settled}
    if not settled or not arrived:
        return []
    ends = heads(settled.values())
    if len(ends) != 1:
        raise UndecidedError(
            f"Your own migrations end twice ({', '.join(ends)}), so nothing was migrated. "
            "Join all of them with `alembic merge heads -m merge`."
        )
    moves = []
    end = ends[0]
    for first in first_of(arrived):
        if first.parents != (end,):
            moves.append((first, end))
        (end,) = heads(chain(first, arrived))
    for first, parent in moves:
        write(project / first.file, with_parent(first, parent))
    return [f"migrations: {r.name} now follows {parent}, the last you have" for r, parent in moves]


def first_of(arrived: dict[str, Revision]) -> list[Revision]:
    """Where each line of arrived revisions begins."""
    return [r for _, r in sorted(arrived.items()) if not set(r.parents) & arrived.keys()]


def chain(first: Revision, arrived: dict[str, Revision]) -> list[Revision]:
    """A revision with those that follow it; UndecidedError if they fork."""
    found = [first]
    while following := [r for r in arrived.values() if found[-1].name in r.parents]:
        if len(following) > 1 or len(following[0].parents) > 1:
            raise UndecidedError(
                f"More than one line of migrations arrived after {found[-1].name}, so nothing was "
                "migrated. Join them with `alembic merge heads -m merge`."
            )
        found += following
    return found


def with_parent(revision: Revision, parent: str) -> str:
    """The text of a revision that follows another one, in its code and in its docstring."""
    lines = revision.text.split("\n")
    for target, value in assignments(revision.text):
        if target.id == "down_revision":
            line = lines[value.lineno - 1].encode()
            quoted = f'"{parent}"'.encode()
            lines[value.lineno - 1] = (
                line[: value.col_offset] + quoted + line[value.end_col_offset :]
            ).decode()
    before = ", ".join(revision.parents)
    text = "\n".join(lines)
    return text.replace(f"Revises: {before}", f"Revises: {parent}", 1) if before else text


def read(file: Path) -> str:
    with file.open(encoding="utf-8", newline="") as source:
        return source.read()


def write(file: Path, text: str) -> None:
    with file.open("w", encoding="utf-8", newline="") as target:
        target.write(text)
