"""How options work, tested on a copy of the template with two more options."""

import shutil
from pathlib import Path

import pytest
from copier import run_copy

from tests.support.projects import ROOT, Answers, combinations

QUESTIONS = """
shelf:
  type: bool
  help: Add a shelf?
  default: true

lamp:
  type: bool
  help: Add a lamp to the shelf?
  default: true
  when: "{{ shelf }}"
"""
OWNERSHIP = """
  - |
    {% if shelf is defined and not shelf %}
    /app/api/v1/shelf_router.py
    {% endif %}
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a new option needs: a question, an `_exclude` block, its files, a line at a merge point."""
    copy = tmp_path_factory.mktemp("template")
    for name in ("template", "hooks"):
        shutil.copytree(ROOT / name, copy / name)
    config = (ROOT / "copier.yml").read_text("utf-8")
    (copy / "copier.yml").write_text(
        config.replace("_exclude:\n", f"_exclude:{OWNERSHIP}", 1) + QUESTIONS, "utf-8"
    )
    v1 = copy / "template/app/api/v1"
    shutil.copy(v1 / "home_router.py", v1 / "shelf_router.py")
    merge_point = v1 / "home_router.py"
    merge_point.rename(merge_point.with_name("home_router.py.jinja")).write_text(
        "{% if shelf %}\nSHELF = True\n{% endif %}\n" + home_router(), "utf-8"
    )
    return copy


def home_router() -> str:
    return (ROOT / "template/app/api/v1/home_router.py").read_text("utf-8")


def render(template: Path, destination: Path, answers: Answers) -> Path:
    run_copy(str(template), destination, answers, defaults=True, quiet=True, skip_tasks=True)
    return destination


def test_every_possible_combination_is_found_from_copier_yml(template: Path) -> None:
    found = [tuple(answers.values())[-2:] for answers in combinations(template)]

    assert found[-3:] == [(True, True), (True, False), (False, False)]
    assert len(found) == 3 * len(combinations())


def test_an_option_adds_its_files_and_its_lines(template: Path, tmp_path: Path) -> None:
    project = render(template, tmp_path / "with", {"shelf": True})

    assert (project / "app/api/v1/shelf_router.py").exists()
    assert (project / "app/api/v1/home_router.py").read_text(
        "utf-8"
    ) == "SHELF = True\n" + home_router()


def test_without_an_option_no_trace_of_it_is_left(template: Path, tmp_path: Path) -> None:
    project = render(template, tmp_path / "without", {"shelf": False})

    assert not (project / "app/api/v1/shelf_router.py").exists()
    assert (project / "app/api/v1/home_router.py").read_text("utf-8") == home_router()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Copier's scandir
def test_an_undefined_variable_in_the_template_is_an_error(template: Path, tmp_path: Path) -> None:
    merge_point = template / "template/app/api/v1/home_router.py.jinja"
    merge_point.write_text("{{ shelve }}", "utf-8")

    with pytest.raises(Exception, match="'shelve' is undefined"):
        render(template, tmp_path / "undefined", {})
