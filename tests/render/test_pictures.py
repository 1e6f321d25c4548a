"""The pictures of the documents: they are there, and show what there is today."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.render.test_project_documents import inspect
from tests.support.projects import ROOT, Generate
from tests.support.projects import questions as template_questions

PICTURES = ROOT / "docs/pictures"
SVG = "{http://www.w3.org/2000/svg}"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")


def lines(picture: str) -> list[str]:
    """The text of a terminal, line by line."""
    rows: dict[float, list[tuple[float, str]]] = {}
    for text in ElementTree.parse(PICTURES / picture).iter(f"{SVG}text"):
        place = float(text.get("x", 0)), (text.text or "").replace("\xa0", " ")
        rows.setdefault(float(text.get("y", 0)), []).append(place)
    return ["".join(part for _, part in sorted(row)).rstrip() for _, row in sorted(rows.items())]


def test_every_picture_is_shown_and_says_what_it_shows() -> None:
    shown = {}
    for document in DOCUMENTS:
        for text, link in IMAGE.findall(document.read_text("utf-8")):
            # A badge is a picture of another server.
            if not link.startswith("https:"):
                shown[(document.parent / link).resolve()] = text
    kept = {file for file in (ROOT / "docs").rglob("*") if file.suffix in {".svg", ".png"}}

    assert kept == {file for file in shown if file.exists()} == {*shown}
    assert all(len(text) > 20 for text in shown.values())


@pytest.mark.parametrize("name", ["creation.svg", "update.svg"])
def test_a_recording_is_small_and_needs_no_other_server(name: str) -> None:
    picture = (PICTURES / name).read_text("utf-8")

    assert len(picture) < 60_000
    assert re.findall(r"(?:href|src|url)[=(]\W*https?:", picture) == []
    assert f"{Path.home()}/" not in picture
    assert "/tmp/" not in picture


@pytest.mark.parametrize("name", ["welcome.png", "docs.png"])
def test_a_screenshot_is_a_small_png(name: str) -> None:
    picture = (PICTURES / name).read_bytes()

    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 100_000


def test_the_recordings_show_commands_of_today(generate: Generate) -> None:
    project = generate(auth=True)
    creation, update = lines("creation.svg"), lines("update.svg")
    guide = (ROOT / "docs/first-update.md").read_text("utf-8")
    start = re.compile(r"^\.venv/bin/uvicorn .+$", re.MULTILINE).findall(project.read("README.md"))

    assert re.fullmatch(r"\$ uvx copier copy --trust --quiet \S+ my_new_app", creation[0])
    assert update[0].removeprefix("$ ") in guide.splitlines()
    assert [line.strip() for line in creation if "bin/uvicorn" in line] == start
    commands = [
        match for line in creation for match in re.findall(r"bin/my-app (\w+ [\w-]+)", line)
    ]
    assert commands
    assert {*commands} <= {*inspect(project)["commands"]}


def test_the_recordings_ask_and_say_what_the_template_does_today() -> None:
    asked = (ROOT / "copier.yml").read_text("utf-8")
    # A symbol is in front of each question.
    shown = [line.partition(" ")[2].strip() for line in lines("creation.svg")]
    questions = [line for line in shown if line and f"help: {line}\n" in asked]
    said = (ROOT / "hooks/post_update.py").read_text("utf-8")
    sentence = "The database is at the latest migration. Run the tests, then commit."

    assert len(questions) == len(template_questions())
    assert sentence in said
    assert f"[update] {sentence}" in lines("update.svg")
