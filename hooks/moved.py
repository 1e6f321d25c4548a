"""Brings the template's changes of a file to where the owner has moved it.

To Copier, a file that is not in its place was deleted. Of one that really was, the owner is told: the
change may be one that the project needs, wherever its code is now.
"""

import tempfile
from pathlib import Path

from repository import ANSWERS, conflicted, last_committed, names, template_version
from three_way import TEMPLATE, content, merge, renamed, render_arrived, render_committed


def follow_moved(project: Path, source: str) -> list[str]:
    """A sentence for each file. `source` is the template's address."""
    missing = changed_and_missing(project)
    if not missing:
        return []
    with tempfile.TemporaryDirectory() as folder:
        old, new = Path(folder, "old"), Path(folder, "new")
        render_committed(project, source, old)
        render_arrived(project, new)
        missed = [
            file
            for file in missing
            if (old / file).is_file()
            and (new / file).is_file()
            and content(old / file) != content(new / file)
        ]
        own = [
            file
            for file in names(project, "ls-files")
            if not (old / file).exists() and not (new / file).exists()
        ]
        places = renamed((old, missed), (project, own), Path(folder))
        conflicts = conflicted(project)
        for file, place in places.items():
            if place not in conflicts:
                sides = (old / file, project / place, new / file)
                merge(project, place, *map(content, sides))
    return [
        f"{places[file]}: has what the template changed in {file}, which you moved there"
        if file in places
        else f"{file}: the template changed it and you had deleted it; see if you need the change"
        for file in missed
    ]


def changed_and_missing(project: Path) -> list[str]:
    """Files that the template changed since the last update, and that the owner once deleted."""
    before = template_version(last_committed(project, ANSWERS))
    changed = names(
        TEMPLATE, "diff", "--name-only", "--no-renames", before, "HEAD", "--", "template"
    )
    files = [file.removeprefix("template/").removesuffix(".jinja") for file in changed]
    missing = [file for file in files if not (project / file).exists()]
    if not missing:
        return []
    deletions = ("log", "--format=", "--name-only", "--no-renames", "--diff-filter=D", "--relative")
    return names(project, *deletions, "--", *(f":(literal){file}" for file in missing))
