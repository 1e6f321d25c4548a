"""Builds the documentation as a site: `python -m tools.site [FOLDER]`, by default in site/.

The pages are the Markdown files of this repository, so that they read well there, too, and the
documents of a project as the template renders them. Links between them are rewritten.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from posixpath import normpath

from copier import run_copy
from copier.errors import DirtyLocalWarning

ROOT = Path(__file__).resolve().parents[1]
# Where a file of this repository is in the site; docs/ keeps its names.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "docs/decisions/README.md": "decisions/index.md",
    "docs/decisions": "decisions/index.md",
}
RENDERED = "template/docs/"
LINK = re.compile(r"(?<=\]\()[^)#:\s]+(?=(?:#[^)\s]*)?\))")
CODE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def place(name: str) -> str:
    """Where the site has this file of the repository."""
    if name in PAGES:
        return PAGES[name]
    if name.startswith(RENDERED):
        return "project/" + name.removeprefix(RENDERED).removesuffix(".jinja")
    # Files that are not pages are there to be read as they are.
    return name.removeprefix("docs/") if name.startswith("docs/") else f"files/{name}"


def sources() -> Iterator[str]:
    """The pages, as paths in the repository."""
    yield from (name for name in PAGES if name.endswith(".md"))
    for folder in ("docs", RENDERED):
        for file in sorted((ROOT / folder).rglob("*.md*")):
            yield file.relative_to(ROOT).as_posix()


def target(page: str, link: str) -> str:
    """The file of the repository to which a link of a page leads."""
    name = normpath(str(PurePosixPath(page).parent / link))
    rendered = f"{name}.jinja"
    return rendered if not (ROOT / name).exists() and (ROOT / rendered).exists() else name


def collect(pages: Path, project: Path) -> None:
    """Write every page, and every file that a page links to, with links that work there."""
    for page in dict.fromkeys(sources()):
        name = page.removeprefix("template/").removesuffix(".jinja")
        source = project / name if page.startswith(RENDERED) else ROOT / page
        file = pages / place(page)
        file.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text("utf-8")
        for link in links(text):
            if not place(target(page, link)).endswith(".md"):
                copy_file(target(page, link), pages)
        move = partial(moved, page)
        parts = CODE.split(text)
        parts[::2] = [LINK.sub(move, part) for part in parts[::2]]
        file.write_text("".join(parts), "utf-8")


def links(text: str) -> list[str]:
    return LINK.findall("".join(CODE.split(text)[::2]))


def moved(page: str, link: re.Match[str]) -> str:
    """A link of a page, as it is in the site."""
    there = place(target(page, link[0]))
    return Path(os.path.relpath(there, PurePosixPath(place(page)).parent)).as_posix()


def copy_file(name: str, pages: Path) -> None:
    (pages / place(name)).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / name, pages / place(name))


def build(site: Path) -> None:
    """Build the site into a folder. A link or an anchor that leads nowhere is an error."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        with warnings.catch_warnings():
            # It is rendered as it is, committed or not.
            warnings.simplefilter("ignore", DirtyLocalWarning)
            run_copy(str(ROOT), project, vcs_ref="HEAD", defaults=True, skip_tasks=True, quiet=True)
        collect(Path(folder, "pages"), project)
        shutil.copy(ROOT / "zensical.toml", folder)
        command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
        subprocess.run(command, cwd=folder, check=True)
        shutil.copytree(Path(folder, "site"), site, dirs_exist_ok=True)


if __name__ == "__main__":
    build(Path(sys.argv[1] if sys.argv[1:] else ROOT / "site"))
