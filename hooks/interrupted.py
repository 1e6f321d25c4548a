"""Notices an update that was killed half-way, and whose half was then committed.

Copier first writes the files anew and then puts the owner's changes back. Killed in between, it leaves
a work tree without those, and asks for a commit before the next try.
"""

from pathlib import Path

from repository import ANSWERS, git, git_bytes, last_committed, template_version


def marker(project: Path) -> Path:
    """Where the commit stands on which an update has begun and not ended: beside the repository's own files."""
    # A repository can hold several projects.
    folder = git(project, "rev-parse", "--show-prefix").strip().replace("/", "-")
    name = f"copier-update-{folder}".rstrip("-")
    return project / git(project, "rev-parse", "--git-path", name).strip()


def begin(project: Path) -> None:
    marker(project).write_text(git(project, "rev-parse", "HEAD"), "utf-8")


def end(project: Path) -> None:
    marker(project).unlink(missing_ok=True)


def committed_half(project: Path) -> str | None:
    """The commit to go back to if the half of an update was committed since."""
    file = marker(project)
    began_at = file.read_text("utf-8").strip() if file.is_file() else ""
    then = git_bytes(project, "show", f"{began_at}:./{ANSWERS}") if began_at else b""
    if then and template_version(then) != template_version(last_committed(project, ANSWERS)):
        return began_at
    return None
