"""The template's migrations."""

import re

from tests.support.projects import ROOT


def template_head() -> str:
    """The newest revision of a project with every option."""
    files = (ROOT / "template/alembic/versions").iterdir()
    text = "".join(file.read_text("utf-8") for file in files if file.is_file())
    revisions = re.findall(r'^revision = "(\w+)"', text, re.MULTILINE)
    head: str
    (head,) = {*revisions} - {*re.findall(r'^down_revision = "(\w+)"', text, re.MULTILINE)}
    return head
