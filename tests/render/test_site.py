"""The documentation as a site, and what its pages show."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.render.test_project_documents import code_blocks, inspect
from tests.support.projects import ROOT, Generate
from tools.site import build

GUIDES = sorted((ROOT / "docs").glob("first-*.md"))
# Windows, or what the reader creates.
NOT_YET_THERE = re.compile(r"\.env|\.venv/.*|\.venv\\.*|.*book.*|\.git.*")


class Links(HTMLParser):
    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in {"href", "src"} and tag in {"a", "img"} and value:
                self.links.append(value)
            elif name == "id" and value:
                self.ids.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build(folder)
    return folder


def test_every_link_and_anchor_of_the_site_leads_somewhere(site: Path) -> None:
    pages = {page: Links(page) for page in site.rglob("*.html")}
    lost = []
    for page, found in pages.items():
        for link in found.links:
            address = urlsplit(link)
            if address.scheme or page.name == "404.html":
                continue
            target = (page.parent / unquote(address.path)).resolve() if address.path else page
            if target.is_dir():
                target /= "index.html"
            anchors = pages[target].ids if target in pages else {address.fragment}
            if not target.exists() or (address.fragment and address.fragment not in anchors):
                lost.append((page.name, link))

    assert len(pages) > 20
    assert lost == []


@pytest.mark.parametrize("guide", GUIDES, ids=lambda file: file.stem)
def test_a_guide_shows_commands_and_files_that_exist(generate: Generate, guide: Path) -> None:
    project = generate(auth=True, github=True)
    commands = inspect(project)["commands"]
    text = guide.read_text("utf-8")
    used = re.findall(r"my-app (?!my-app)([a-z][a-z-]*(?: [a-z][a-z-]*)?)", text)
    files = set(re.findall(r"`((?:app|docs|tests|alembic)/[\w./-]*|[\w.-]+\.(?:sh|md))`", text))

    assert code_blocks(text, "sh")
    assert [c for c in used if c not in commands and c.split()[0] not in commands] == []
    assert [f for f in files if not project.has(f) and not NOT_YET_THERE.fullmatch(f)] == []


def test_the_first_deploy_shows_what_the_document_for_operators_shows(generate: Generate) -> None:
    """A test follows those commands on a host with a real systemd."""
    document = generate(auth=True).read("docs/operating.md")
    followed = [*code_blocks(document, ""), *code_blocks(document, "sh")]
    guide = (ROOT / "docs/first-deploy.md").read_text("utf-8")

    shown = [*code_blocks(guide, "sh"), *code_blocks(guide, "")]

    assert len(shown) == 8, shown
    assert [block for block in shown if block not in followed] == []
