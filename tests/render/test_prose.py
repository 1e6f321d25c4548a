"""The English of everything that people read: spelling, proselint and the house's own words."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.projects import ROOT, Project
from tools.prose import findings, suffix, what_people_read

FILES = [file.relative_to(ROOT).as_posix() for file in what_people_read()]
DOCUMENTS = [name for name in FILES if suffix(Path(name)) == ".md"]
FOLDERS = sorted({name.partition("/")[0] for name in FILES if name not in DOCUMENTS})


def complaints(names: list[str]) -> list[str]:
    return [f"{name}:{line}: {text}" for name in names for line, text in findings(ROOT / name)]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_plain_english(name: str) -> None:
    assert complaints([name]) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_comments_messages_and_settings_are_plain_english(folder: str) -> None:
    names = [name for name in FILES if name.partition("/")[0] == folder and name not in DOCUMENTS]

    assert complaints(names) == []


def test_everything_that_people_read_is_checked() -> None:
    expected = {
        ".env.example",
        "app/cli.py.jinja",
        "app/main.py",
        "README.md.jinja",
        "setup.bat",
        "setup.sh",
    }
    documents = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/upgrading.md"}

    assert {f"template/{name}" for name in expected} <= set(FILES)
    assert documents <= set(DOCUMENTS)
    assert {"copier.yml", "create_project.py", "hooks/post_update.py"} <= set(FILES)


def spelling(folder: Path) -> str:
    command = [str(Path(sys.executable).with_name("typos")), "--format", "brief"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return run.stdout + run.stderr


def test_everything_is_spelled_right() -> None:
    assert spelling(ROOT).splitlines() == []


def test_a_new_project_is_spelled_right(project: Project) -> None:
    assert spelling(project.path).splitlines() == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.md", "Whoever reads\nbeside the e-mail", [1, 2, 2]),
        ("a.md", "A mail, or two of the mails\nin `app/mails`, for a mail server.", [1, 1]),
        ("a.md", "Run `set-up` and [read](docs/log-in.md).\n\n```\nset-up\n```\n", []),
        ("a.md", "The book\nis very unique, and the the title too.", [2, 2]),
        ("a.md", "A line of words, " * 6 + "and so on.\n| " + "a cell, " * 20 + "|", [1]),
        ("a.md.jinja", "{% if e-mail %}\nThe set-up.\n{% endif %}", [2]),
        ("a.py", '"""Fine."""\n\nmend = 1\n# Mend it.\nf"the set-up of {mend}"\n', [4, 5]),
        ("a.py.jinja", '{% if auth %}\nNAME = "{{ name }} set-up"\n{% endif %}\n', [2]),
        ("a.yml", "set-up: no\nhelp: There are no books. This is no book.\n", [1, 2]),
        ("a.html", "<style>a { mend: 1 }</style>\n<p class='set-up'>Set up</p>", []),
    ],
)
def test_prose_is_found_where_it_is(
    tmp_path: Path, name: str, text: str, expected: list[int]
) -> None:
    file = tmp_path / name
    file.write_text(text, "utf-8")

    assert [line for line, _ in findings(file)] == expected
