"""The template's migrations."""

import re
from pathlib import Path

from tests.support.projects import ROOT


def template_head() -> str:
    """The newest revision of a project with every option."""
    return head(ROOT / "template")


def head(project: Path) -> str:
    files = (project / "alembic/versions").iterdir()
    text = "".join(file.read_text("utf-8") for file in files if file.is_file())
    revisions = re.findall(r'^revision = "(\w+)"', text, re.MULTILINE)
    newest: str
    (newest,) = {*revisions} - {*re.findall(r'^down_revision = "(\w+)"', text, re.MULTILINE)}
    return newest
