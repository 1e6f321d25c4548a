"""Puts migrations that arrived with an update behind those that the project has.

The template's next migration follows the template's last one, and so does the first that an owner
wrote: two heads, which Alembic refuses. What is committed may have run in production and is never
changed. What just arrived has run nowhere, so it moves.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from repository import conflicted, git, last_committed, names

VERSIONS = "alembic/versions"


class UndecidedError(Exception):
    """Why nothing was moved, in a sentence that says what to do."""


@dataclass(frozen=True)
class Revision:
    file: str
    content: bytes
    name: str
    parents: tuple[str, ...]


def read_revision(file: str, content: bytes) -> Revision | None:
    """None for a file that is no migration; UndecidedError for one that only Alembic can read."""
    try:
        values = {
            target.id: ast.literal_eval(value)
            for target, value in assignments(content)
            if target.id in {"revision", "down_revision"}
        }
    except (SyntaxError, ValueError):
        raise UndecidedError(
            f"{file} can't be read without running it, so nothing was migrated. Write `revision` and "
            "`down_revision` in it as plain strings, commit that, and update again."
        ) from None
    name, parents = values.get("revision"), values.get("down_revision")
    if name is None:
        return None
    return Revision(file, content, name, (parents,) if isinstance(parents, str) else parents or ())


def assignments(content: bytes) -> list[tuple[ast.Name, ast.expr]]:
    """`name = value` and `name: type = value`, at the top level of a module in any encoding."""
    found = []
    for node in ast.parse(content).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        value = getattr(node, "value", None)
        found += [(t, value) for t in targets if isinstance(t, ast.Name) and value is not None]
    return found


def committed_files(project: Path) -> list[str]:
    listing = names(project, "ls-tree", "-r", "--name-only", "HEAD", VERSIONS)
    return [file for file in listing if file.endswith(".py")]


def committed(project: Path) -> dict[str, Revision]:
    """The revisions that the last commit has, by name."""
    files = committed_files(project)
    return by_name((file, last_committed(project, file)) for file in files)


def present_files(project: Path) -> list[Path]:
    return sorted((project / VERSIONS).rglob("*.py"))


def present(project: Path) -> dict[str, Revision]:
    files = present_files(project)
    return by_name((file.relative_to(project).as_posix(), file.read_bytes()) for file in files)


def said_names(content: bytes) -> set[str]:
    """The name of a revision, or nothing if only Alembic could tell."""
    try:
        revision = read_revision("", content)
    except UndecidedError:
        return set()
    return {revision.name} if revision else set()


def by_name(files: Iterable[tuple[str, bytes]]) -> dict[str, Revision]:
    revisions = (read_revision(file, content) for file, content in files)
    return {revision.name: revision for revision in revisions if revision}


def heads(revisions: Iterable[Revision]) -> list[str]:
    """Those that no other one follows."""
    revisions = list(revisions)
    followed = {parent for revision in revisions for parent in revision.parents}
    return sorted(revision.name for revision in revisions if revision.name not in followed)


def restore_committed(project: Path) -> list[str]:
    """Bring back the migrations that an update changed or took away; a sentence for each that was gone.

    They may have run in production. One moves when it arrives, so the template's own is another.
    """
    files = committed_files(project)
    gone = [file for file in files if not (project / file).exists()]
    if gone:
        # One that was renamed is not gone.
        here = {text for file in present_files(project) for text in said_names(file.read_bytes())}
        gone = [file for file in gone if not here & said_names(last_committed(project, file))]
    for file in {*gone, *set(files).intersection(conflicted(project))}:
        git(project, "checkout", "--quiet", "HEAD", "--", f":(literal){file}")
    return [
        f"migrations: {Path(file).name} stays, since your database has it, and so do its tables and "
        'rows; `alembic revision -m "drop" --autogenerate` makes a migration that drops them'
        for file in gone
    ]


def reparent(project: Path) -> list[str]:
    """Move the revisions that arrived behind the one head of those that are committed.

    Returns a sentence for each that moved; run again, there is nothing left to move. Raises
    UndecidedError if there are two places where they could go, or none that is known.
    """
    before = committed_files(project)
    came = [f for f in present_files(project) if f.relative_to(project).as_posix() not in before]
    try:
        settled = committed(project)
    except UndecidedError:
        if came:
            raise
        return []
    ends = heads(settled.values())
    if len(ends) > 1:
        raise UndecidedError(
            f"Your own migrations end more than once ({', '.join(ends)}), so nothing was migrated. Undo "
            f"this update (`git reset --hard`, `git clean -fd`), join them with "
            f"`alembic merge {' '.join(ends)} -m merge`, commit, and update again."
        )
    arrived = {name: r for name, r in present(project).items() if name not in settled}
    if not arrived:
        return []
    if not ends:
        raise UndecidedError(
            f"A migration arrived in {VERSIONS}, where you have none, so nothing was migrated. Move "
            "it to yours, and let its `down_revision` name your last one."
        )
    moves = []
    end = ends[0]
    for first in first_of(arrived):
        if first.parents != (end,):
            moves.append((first, end))
        (end,) = heads(chain(first, arrived))
    for first, parent in moves:
        (project / first.file).write_bytes(with_parent(first, parent))
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


def with_parent(revision: Revision, parent: str) -> bytes:
    """A revision of the template (in UTF-8) that follows another one, in its code and its docstring."""
    lines = revision.content.split(b"\n")
    for target, value in assignments(revision.content):
        if target.id == "down_revision":
            line = lines[value.lineno - 1]
            quoted = f'"{parent}"'.encode()
            lines[value.lineno - 1] = (
                line[: value.col_offset] + quoted + line[value.end_col_offset :]
            )
    content = b"\n".join(lines)
    if not revision.parents:
        return content
    before = f"Revises: {', '.join(revision.parents)}".encode()
    return content.replace(before, f"Revises: {parent}".encode(), 1)
