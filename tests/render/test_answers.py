"""Answers: what is refused, with which sentence, and what is made of the others."""

import re
import tomllib

import pytest

from tests.projects import ROOT, Generate


def slug(generate: Generate, name: str) -> str:
    project = generate(project_name=name)
    return str(tomllib.loads(project.read("pyproject.toml"))["project"]["name"])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "Give the app a name, such as Book Shelf."),
        ("   ", "Give the app a name"),
        (" Shelf", "Leave out the spaces around the name: Shelf."),
        ("x" * 300, "Keep the name to 64 characters"),
        ('Ada"s Shelf', "Leave out quotes"),
        ("Ada's Shelf", "Leave out quotes"),
        ("{{ shelf }}", "Leave out quotes"),
        ("{% shelf %}", "Leave out quotes"),
        ("Book\nShelf", "Leave out quotes"),
        ("Book\u2028Shelf", "Leave out quotes"),
        ("Book\u202eShelf", "Leave out quotes"),
        ("Book\x00Shelf", "Leave out quotes"),
        ("Book\\Shelf", "Leave out quotes"),
        ("$(Shelf)", "Leave out quotes"),
        ("<b>Shelf</b>", "Leave out quotes"),
        ("2048", "Put at least one letter into the name"),
        ("--", "Put at least one letter into the name"),
    ],
)
def test_an_unfit_name_is_refused_in_a_sentence(
    generate: Generate, name: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match="project_name") as refusal:
        generate(project_name=name)

    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        ("", "Describe the app in one sentence"),
        ("x" * 300, "Keep the description to 200 characters"),
        ('The "best" shelf', "Leave out quotes"),
        ("{{ shelf }}", "Leave out quotes"),
        ("One line\nand another", "Leave out quotes"),
    ],
)
def test_an_unfit_description_is_refused_in_a_sentence(
    generate: Generate, description: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match="project_description") as refusal:
        generate(project_description=description)

    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("My App", "my-app"),
        ("Größe & Maß", "grosse-mass"),
        ("Łódź Café", "lodz-cafe"),
        ("日本の本棚", "my-app"),
        ("हिन्दी पुस्तक", "my-app"),
        ("3D Print", "3d-print"),
        ("C++ / Rust?", "c-rust"),
        ("FastAPI", "fastapi-app"),
        ("pytest", "pytest-app"),
        ("Python", "python-app"),
    ],
)
def test_any_other_name_gives_a_distribution_name(
    generate: Generate, name: str, expected: str
) -> None:
    assert slug(generate, name) == expected


def test_a_name_in_any_script_is_kept_and_clean(generate: Generate) -> None:
    project = generate(project_name="Größe 日本 हिन्दी (2), a + b & c!")

    assert 'TITLE = "Größe 日本 हिन्दी (2), a + b & c!"' in project.read("app/__init__.py")
    project.succeed("ruff", "check", RUFF_NO_CACHE="true")
    project.succeed("ruff", "format", "--check", RUFF_NO_CACHE="true")


def test_no_project_is_named_like_a_library_that_it_installs(generate: Generate) -> None:
    """The list stands in copier.yml, since Jinja can't read constraints.txt."""
    pins = (ROOT / "template/constraints.txt.jinja").read_text("utf-8")
    libraries = re.findall(r"^([\w.-]+)==", pins, re.MULTILINE)
    config = (ROOT / "copier.yml").read_text("utf-8")

    assert [name for name in libraries if f'"{name}"' not in config] == []


def test_the_taken_names_are_names() -> None:
    config = (ROOT / "copier.yml").read_text("utf-8")
    taken = config.partition("{% set taken = [")[2].partition("]")[0]

    names = [name.strip() for name in taken.split(",")]

    assert len(names) > 50
    assert [name for name in names if not re.fullmatch(r'"[a-z0-9-]+"', name)] == []
