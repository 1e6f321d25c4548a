"""Which answers are rejected, with which message, and what the others become."""

import re
import tomllib

import pytest

from tests.support.projects import ROOT, Generate, questions


def fits_on_a_line(message: str) -> bool:
    """Copier shows it on one line below the answer, and cuts off the rest."""
    text = message.partition("': ")[2]
    return bool(text) and "\n" not in text and len(text) <= 80


def slug(generate: Generate, name: str) -> str:
    project = generate(project_name=name)
    return str(tomllib.loads(project.read("pyproject.toml"))["project"]["name"])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "Give the app a name, such as Book Shelf."),
        ("   ", "Give the app a name"),
        (" Shelf", "Remove the spaces at the start and end of the name."),
        ("x" * 300, "Use at most 64 characters for the name (this one has 300)."),
        ('Ada"s Shelf', "Remove quotes, line breaks, and any of"),
        ("Ada's Shelf", "Remove quotes, line breaks, and any of"),
        ("{{ shelf }}", "Remove quotes, line breaks, and any of"),
        ("{% shelf %}", "Remove quotes, line breaks, and any of"),
        ("Book\nShelf", "Remove quotes, line breaks, and any of"),
        ("Book\u2028Shelf", "Remove quotes, line breaks, and any of"),
        ("Book\u202eShelf", "Remove quotes, line breaks, and any of"),
        ("Book\x00Shelf", "Remove quotes, line breaks, and any of"),
        ("Book\\Shelf", "Remove quotes, line breaks, and any of"),
        ("$(Shelf)", "Remove quotes, line breaks, and any of"),
        ("<b>Shelf</b>", "Remove quotes, line breaks, and any of"),
        ("2048", "Use at least one letter in the name"),
        ("--", "Use at least one letter in the name"),
    ],
)
def test_an_invalid_name_is_rejected_in_one_line(
    generate: Generate, name: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match="project_name") as rejected:
        generate(project_name=name)

    assert sentence in str(rejected.value)
    assert fits_on_a_line(str(rejected.value))


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        ("", "Describe the app in one sentence"),
        ("x" * 300, "Use at most 200 characters for the description"),
        ('The "best" shelf', "Remove quotes, line breaks, and any of"),
        ("{{ shelf }}", "Remove quotes, line breaks, and any of"),
        ("One line\nand another", "Remove quotes, line breaks, and any of"),
    ],
)
def test_an_invalid_description_is_rejected_in_one_line(
    generate: Generate, description: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match="project_description") as rejected:
        generate(project_description=description)

    assert sentence in str(rejected.value)
    assert fits_on_a_line(str(rejected.value))


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


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("3D Prints", "app-3d-prints"),
        ("News", "app-news"),
        ("Book Shelf of the Public Library in Reykjavik", "book-shelf-of-the-public-librar"),
        ("A Shelf for Books, Maps, and Any Other", "a-shelf-for-books-maps-and-any"),
    ],
)
def test_the_user_of_the_service_has_a_name_that_every_useradd_takes(
    generate: Generate, name: str, user: str
) -> None:
    project = generate(project_name=name)
    document = project.read("docs/operating.md")
    units = [project.read(str(file)) for file in project.files() if file.suffix == ".service"]

    assert [re.findall("^User=(.*)", unit, re.MULTILINE) for unit in units] == [[user]] * 2
    assert re.findall(r"useradd .* (\S+)$", document, re.MULTILINE) == [user]
    assert {*re.findall(r"(?:runuser -u|install .*-o) (\S+)", document)} == {user}


def test_every_prompt_fits_on_a_line() -> None:
    """Copier puts an emoji, which is two columns wide, and a space before it."""
    prompts = [question["help"] for question in questions().values()]

    assert [prompt for prompt in prompts if len(prompt) + 3 > 80 or "\n" in prompt] == []


def test_a_name_in_any_script_is_kept_and_clean(generate: Generate) -> None:
    project = generate(project_name="Größe 日本 हिन्दी (2), a + b & c!")

    assert 'TITLE = "Größe 日本 हिन्दी (2), a + b & c!"' in project.read("app/__init__.py")
    project.succeed("ruff", "check", RUFF_NO_CACHE="true")
    project.succeed("ruff", "format", "--check", RUFF_NO_CACHE="true")


def test_no_project_is_named_like_a_library_that_it_installs(generate: Generate) -> None:
    """The list is in copier.yml because Jinja can't read constraints.txt."""
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
