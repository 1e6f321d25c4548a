"""Keeps what the owner changed in files that the template has renamed or no longer has.

Copier deletes such a file, the owner's changes with it. Here they move along to the new name; and a
file without one comes back as a conflict, for the owner to decide.
"""

import tempfile
from pathlib import Path

from repository import arrived, git, last_committed, mark_conflicted, names
from revisions import VERSIONS
from three_way import content, merge, renamed, render_committed, with_lf


def keep_changed(project: Path, source: str) -> list[str]:
    """Bring back what would be lost; a sentence for each file. `source` is the template's address."""
    gone = names(project, "diff", "--name-only", "--diff-filter=D", "--relative", "HEAD")
    gone = [file for file in gone if not file.startswith(f"{VERSIONS}/")]
    if not gone:
        return []
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder, "old")
        render_committed(project, source, old)
        changed = [file for file in gone if is_changed(project, old, file)]
        moved = renamed((old, changed), (project, arrived(project)), Path(folder))
        return [
            follow(project, old, file, moved[file]) if file in moved else ask(project, old, file)
            for file in changed
        ]


def is_changed(project: Path, old: Path, file: str) -> bool:
    return with_lf(last_committed(project, file)) != with_lf(content(old / file))


def follow(project: Path, old: Path, file: str, new: str) -> str:
    """Merge the owner's changes of a file into that of its new name."""
    merge(project, new, content(old / file), last_committed(project, file), content(project / new))
    return f"{file} is {new} now, and your changes of it are in there"


def ask(project: Path, old: Path, file: str) -> str:
    """Bring a file back as a conflict between the owner, who changed it, and the template."""
    git(project, "checkout", "HEAD", "--", f":(literal){file}")
    mark_conflicted(project, file, content(old / file), last_committed(project, file))
    return (
        f"{file}: the template no longer has it, and you changed it: "
        "`git rm` it, or `git add` it to keep it"
    )
