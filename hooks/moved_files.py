"""Keeps the owner's changes of files that one of the two sides has moved, renamed or removed.

Copier deletes a file that the template no longer has, the owner's changes with it, and skips a file that
is no longer where the template has it.
"""

from functools import partial
from pathlib import Path

from line_merge import duplicate_names
from migrations import VERSIONS
from python_merge import (
    Merge,
    UnsureError,
    changed_lines,
    local_name,
    own_part,
    restore_names,
    top_imports,
)
from repository import (
    ANSWERS,
    TEMPLATE,
    Renders,
    changed_files,
    conflict_sides,
    conflicted_files,
    content,
    git,
    last_committed,
    list_files,
    mark_resolved,
    merge_text,
    new_files,
    restore,
    template_version,
    with_lf,
)
from tools.moved_names import Table

THE_TEMPLATES = ("app/core/", "app/auth/")

# ---- merges of Python files -----------------------------------------------------------------


def merge_python(project: Path, table: Table) -> list[str]:
    """Merge conflicts in the owner's Python files by statements; returns what to tell the owner."""
    sentences = []
    for file in conflicted_files(project):
        if not file.endswith(".py") or file.startswith(THE_TEMPLATES):
            continue
        sides = {name: text_of(side) for name, side in conflict_sides(project, file).items()}
        notes = merge_statements(project, table, file, **sides) if sides else None
        if notes is not None:
            mark_resolved(project, file)
            sentences += notes
    return sentences


def text_of(content: bytes) -> str:
    return with_lf(content).decode("utf-8", "surrogateescape")


def merge_statements(
    project: Path, table: Table, file: str, before: str, yours: str, template: str | None
) -> list[str] | None:
    """Merge one file and write the result; what to tell the owner, or None if it stays as it is."""
    module = file.removesuffix(".py").replace("/", ".")
    locate = partial(locate_name, table, template or "")
    merge = Merge(module, lambda name: (project / name).read_bytes().decode("utf-8"), locate)
    try:
        merged = merge.run(file, before, yours, template)
        if template is not None and duplicate_names(file, merged[file], yours, template):
            return None
    except Exception:
        # Ambiguous, not Python, or not foreseen: it stays a conflict.
        return None
    for name, text in merged.items():
        (project / name).write_bytes(text.encode("utf-8"))
    return merge.notes


def locate_name(table: Table, template: str, module: str, name: str) -> tuple[str, str] | None:
    """The file where a name of a module is now: the table says so, or the module imports it."""
    target = table.target(f"{module}.{name}")
    if target != f"{module}.{name}":
        new_module, _, new_name = target.rpartition(".")
        return f"{new_module.replace('.', '/')}.py", new_name
    for new in top_imports(template):
        if new.module.startswith("app.") and local_name(new) == name:
            return f"{new.module.replace('.', '/')}.py", new.name
    return None


def restore_lost_names(project: Path, table: Table) -> list[str]:
    """In files without a conflict, import what the owner's code uses; returns what to tell them."""
    sentences = []
    conflicted = conflicted_files(project)
    for file in changed_files(project, "M"):
        if not file.endswith(".py") or file in conflicted or not (project / file).is_file():
            continue
        module = file.removesuffix(".py").replace("/", ".")
        try:
            text = (project / file).read_bytes().decode("utf-8")
            yours = last_committed(project, file).decode("utf-8")
            restored, names = restore_names(module, text, yours, partial(locate_name, table, text))
        except UnsureError as error:
            sentences.append(f"{file}: {error}")
            continue
        except (SyntaxError, ValueError):
            continue
        if names:
            (project / file).write_bytes(restored.encode("utf-8"))
            sentences.append(f"{file}: kept {', '.join(names)}, which your code uses")
    return sentences


# ---- files that are not UTF-8 ---------------------------------------------------------------


def merge_bytes(project: Path, renders: Renders) -> None:
    """Merge these files again: Copier drops what is not UTF-8, and every change of a binary file."""
    for file in changed_files(project):
        yours = last_committed(project, file)
        if is_text(yours) or not (project / file).is_file():
            continue
        old, new = content(renders.old / file), content(renders.new / file)
        restore(project, file)
        if old != new:
            merge_text(project, file, old, yours, new)


def is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False


# ---- files that the template renamed or removed -------------------------------------------


def keep_changed(project: Path, renders: Renders, table: Table) -> list[str]:
    """Keep the owner's changes of files that the template dropped; returns what to tell the owner."""
    sentences, left = [], []
    for file in changed_files(project, "D"):
        if file.startswith(f"{VERSIONS}/") or not is_changed(project, renders.old, file):
            continue
        old, yours = map(text_of, (content(renders.old / file), last_committed(project, file)))
        is_python = file.endswith(".py")
        notes = merge_statements(project, table, file, old, yours, None) if is_python else None
        if notes is None:
            left.append(file)
        else:
            sentences += [f"{file}: the template no longer has it, and you changed it", *notes]
    if not left:
        return sentences
    moved = find_renames((renders.old, left), (project, new_files(project)), renders.folder)
    for file in left:
        if file in moved:
            sentences.append(follow_rename(project, renders.old, file, moved[file]))
        else:
            sentences += let_go(project, renders.old, file)
    return sentences


def is_changed(project: Path, old: Path, file: str) -> bool:
    return with_lf(last_committed(project, file)) != with_lf(content(old / file))


def follow_rename(project: Path, old: Path, file: str, new: str) -> str:
    """Merge the owner's changes of a file into the file under its new name."""
    sides = content(old / file), last_committed(project, file), content(project / new)
    merge_text(project, new, *sides)
    return f"{file} is now {new}; your changes are in it"


def let_go(project: Path, old: Path, file: str) -> list[str]:
    """Keep what the owner added to a Python file; returns what to say about the other changes."""
    before, yours = (
        with_lf(text).decode("utf-8", "replace")
        for text in (content(old / file), last_committed(project, file))
    )
    own, rest = split_own_part(file, before, yours)
    if own:
        _, before = split_own_part(file, before, before)
    said = f"{file}: the template no longer has it"
    if own:
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).write_bytes(own.encode("utf-8"))
        said += "; what you added to it stays"
    lines = changed_lines(before, rest)
    if not lines:
        return [said]
    return [f"{said}. These changes of yours are gone (git has them):", *lines]


def split_own_part(file: str, before: str, yours: str) -> tuple[str, str]:
    """What the owner added to a Python file, and the rest; a file that can't be read has no parts."""
    if file.endswith(".py"):
        try:
            return own_part(before, yours)
        except (SyntaxError, ValueError, UnsureError):
            pass
    return "", yours


def find_renames(
    before: tuple[Path, list[str]], after: tuple[Path, list[str]], folder: Path
) -> dict[str, str]:
    """Which file of one root is which file of the other, as git detects renames."""
    for side, (root, files) in {"before": before, "after": after}.items():
        (folder / side).mkdir(exist_ok=True)
        for file in files:
            (folder / side / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / side / file).write_bytes(content(root / file))
    command = ("diff", "--no-index", "--find-renames", "--diff-filter=R", "--name-status", "-z")
    fields = iter(git(folder, *command, "before", "after").split("\0"))
    return {
        old.removeprefix("before/"): new.removeprefix("after/")
        for _, old, new in zip(fields, fields, fields, strict=False)
    }


# ---- files that the owner renamed or removed ----------------------------------------------


def follow_renamed_by_owner(project: Path, renders: Renders) -> list[str]:
    """Bring the template's changes of a file to where the owner has moved it.

    Returns what to tell the owner, also of a file that they deleted: their project may need the
    change elsewhere.
    """
    missing = changed_and_missing(project)
    if not missing:
        return []
    old, new = renders.old, renders.new
    missed = [
        file
        for file in missing
        if (old / file).is_file()
        and (new / file).is_file()
        and content(old / file) != content(new / file)
    ]
    own = [
        file
        for file in list_files(project, "ls-files")
        if not (old / file).exists() and not (new / file).exists()
    ]
    folder = renders.folder / "owner"
    folder.mkdir()
    places = find_renames((old, missed), (project, own), folder)
    conflicts = conflicted_files(project)
    for file, place in places.items():
        if place not in conflicts:
            sides = (old / file, project / place, new / file)
            merge_text(project, place, *map(content, sides))
    return [
        f"{places[file]}: has the template's changes of {file}, which you moved there"
        if file in places
        else f"{file}: you deleted it, and the template changed it; check whether you need the change"
        for file in missed
    ]


def changed_and_missing(project: Path) -> list[str]:
    """Files that the template changed since the last update, and that the owner once deleted."""
    before = template_version(last_committed(project, ANSWERS))
    changed = list_files(
        TEMPLATE, "diff", "--name-only", "--no-renames", before, "HEAD", "--", "template"
    )
    files = [file.removeprefix("template/").removesuffix(".jinja") for file in changed]
    missing = [file for file in files if not (project / file).exists()]
    if not missing:
        return []
    deletions = ("log", "--format=", "--name-only", "--no-renames", "--diff-filter=D", "--relative")
    return list_files(project, *deletions, "--", *(f":(literal){file}" for file in missing))
