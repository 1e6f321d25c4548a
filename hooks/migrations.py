"""Keeps the migrations of a project in one line when an update brings new ones.

The template's new migration follows the template's last one, and so does the owner's first one: two
heads, which Alembic rejects. Committed migrations may have run in production, so they never change.
Migrations that just arrived have run nowhere, so they move behind the owner's.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from repository import (
    TEMPLATE,
    changed_files,
    conflicted_files,
    last_committed,
    list_files,
    restore,
)

VERSIONS = "alembic/versions"


class UndecidedError(Exception):
    """Why no migration was moved, and what to do."""


@dataclass(frozen=True)
class Revision:
    file: str
    content: bytes
    name: str
    parents: tuple[str, ...]


def read_revision(file: str, content: bytes) -> Revision | None:
    """None if the file is not a migration; UndecidedError if only Alembic can read it."""
    try:
        values = {
            target.id: ast.literal_eval(value)
            for target, value in assignments(content)
            if target.id in {"revision", "down_revision"}
        }
    except (SyntaxError, ValueError):
        raise UndecidedError(
            f"{file} can't be read without running it, so nothing was migrated. Write its `revision` and "
            "`down_revision` as plain strings, commit, and update again."
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
    listing = list_files(project, "ls-tree", "-r", "--name-only", "HEAD", VERSIONS)
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


def revision_names(content: bytes) -> set[str]:
    """The name of the revision; nothing if only Alembic can read it."""
    try:
        revision = read_revision("", content)
    except UndecidedError:
        return set()
    return {revision.name} if revision else set()


def by_name(files: Iterable[tuple[str, bytes]]) -> dict[str, Revision]:
    revisions = (read_revision(file, content) for file, content in files)
    return {revision.name: revision for revision in revisions if revision}


def heads(revisions: Iterable[Revision]) -> list[str]:
    """The revisions that no other one follows."""
    revisions = list(revisions)
    followed = {parent for revision in revisions for parent in revision.parents}
    return sorted(revision.name for revision in revisions if revision.name not in followed)


def restore_committed(project: Path) -> list[str]:
    """Bring back the migrations that an update changed or deleted; a sentence for each deleted one.

    They may have run in production. A migration moves when it arrives, so it may differ from the
    template's own.
    """
    files = committed_files(project)
    gone = [file for file in files if not (project / file).exists()]
    if gone:
        # A renamed migration is not gone.
        here = {
            text for file in present_files(project) for text in revision_names(file.read_bytes())
        }
        gone = [file for file in gone if not here & revision_names(last_committed(project, file))]
    # An option may change the parent of a migration that is there with and without it.
    changed = {*changed_files(project, folder=VERSIONS), *conflicted_files(project)}
    for file in {*gone, *changed.intersection(files)}:
        restore(project, file)
    return [
        f"migrations: {Path(file).name} stays, because your database has it; so do its tables and "
        'rows. `alembic revision -m "drop" --autogenerate` creates a migration that drops them'
        for file in gone
    ]


def restore_rendered_over(project: Path) -> None:
    """Bring back the committed form of the template's migrations, which may have other parents."""
    files = (TEMPLATE / "template" / VERSIONS).iterdir()
    rendered = {file.name.removesuffix(".jinja") for file in files}
    for file in changed_files(project, folder=VERSIONS):
        if Path(file).name in rendered:
            restore(project, file)


def reparent(project: Path) -> list[str]:
    """Move the revisions that arrived behind the single head of the committed ones.

    Returns a sentence for each revision that moved; a second run moves nothing. Raises
    UndecidedError if they could go to two places, or to none.
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
            f"Your own migrations have several heads ({', '.join(ends)}), so nothing was migrated. Undo "
            f"this update (`git reset --hard`, `git clean -fd`), join the heads with "
            f"`alembic merge {' '.join(ends)} -m merge`, commit, and update again."
        )
    arrived = {name: r for name, r in present(project).items() if name not in settled}
    if not arrived:
        return []
    if not ends:
        raise UndecidedError(
            f"A migration arrived in {VERSIONS}, but you keep yours elsewhere, so nothing was migrated. "
            "Move it to yours and set its `down_revision` to your last one."
        )
    moves = []
    end = ends[0]
    for first in first_of(arrived):
        if first.parents != (end,):
            moves.append((first, end))
        (end,) = heads(chain(first, arrived))
    for first, parent in moves:
        (project / first.file).write_bytes(with_parent(first, parent))
    return [f"migrations: {r.name} now follows {parent}, your last one" for r, parent in moves]


def first_of(arrived: dict[str, Revision]) -> list[Revision]:
    """The first revision of each line that arrived."""
    return [r for _, r in sorted(arrived.items()) if not set(r.parents) & arrived.keys()]


def chain(first: Revision, arrived: dict[str, Revision]) -> list[Revision]:
    """A revision and all that follow it; UndecidedError if they fork."""
    found = [first]
    while following := [r for r in arrived.values() if found[-1].name in r.parents]:
        if len(following) > 1 or len(following[0].parents) > 1:
            raise UndecidedError(
                f"Several lines of migrations arrived after {found[-1].name}, so nothing was migrated. "
                "Join them with `alembic merge heads -m merge`."
            )
        found += following
    return found


def with_parent(revision: Revision, parent: str) -> bytes:
    """The template's revision (in UTF-8) with another parent, in its code and its docstring."""
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
