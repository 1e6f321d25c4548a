"""What the changelog asks an owner to do after an update."""

import re
from collections.abc import Iterator
from pathlib import Path

Version = tuple[int, ...]

SECTION = re.compile(r"^## (.+)$", re.MULTILINE)


def version(text: str) -> Version:
    """Of `v0.3.0`, `0.3.0` or `v0.3.0-5-gab0fea6`; nothing of a bare commit."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def notes(changelog: Path, before: str, after: str) -> Iterator[str]:
    """The paragraphs "After updating" of the releases that came, the oldest first."""
    if not changelog.is_file() or not version(before):
        return
    _, *parts = SECTION.split(changelog.read_text("utf-8"))
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    for name in sorted(sections, key=version):
        if version(before) < version(name) <= (version(after) or version(name)):
            for paragraph in sections[name].split("\n\n"):
                if paragraph.strip().startswith("After updating"):
                    yield f"{name}: {' '.join(paragraph.split())}"
