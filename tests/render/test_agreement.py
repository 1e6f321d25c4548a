"""Facts that are written in two places agree."""

import re
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement

from tests.support.projects import ROOT, Generate, Project, combinations, questions


def read(file: str) -> str:
    return Project(ROOT, {}).read(file)


def pins(file: str) -> dict[str, str]:
    """Package → exact version."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", read(file), re.MULTILINE))


def test_p1_the_tests_run_with_the_versions_that_projects_are_given() -> None:
    ours, theirs = pins("requirements-dev.txt"), pins("template/constraints.txt.jinja")

    # It builds a project, and no test uses it.
    del theirs["setuptools"]
    assert {name: ours.get(name) for name in theirs} == theirs


def test_every_dependency_of_a_project_is_pinned(project: Project) -> None:
    package = tomllib.loads(project.read("pyproject.toml"))["project"]
    named = [*package["dependencies"], *package["optional-dependencies"]["dev"]]
    names = {re.split(r"[\[>=]", requirement)[0] for requirement in named}

    assert names <= set(re.findall(r"^([\w.-]+)==", project.read("constraints.txt"), re.MULTILINE))


def test_our_environment_has_what_projects_need_in_the_same_bounds(project: Project) -> None:
    ours = tomllib.loads(read("pyproject.toml"))["dependency-groups"]["dev"]
    package = tomllib.loads(project.read("pyproject.toml"))["project"]

    assert set(package["dependencies"]) <= set(ours)
    assert set(package["optional-dependencies"]["dev"]) <= set(ours)


def test_the_oldest_python_is_the_same_everywhere(project: Project) -> None:
    package = tomllib.loads(project.read("pyproject.toml"))
    oldest = package["project"]["requires-python"].removeprefix(">=")
    as_tuple = f"({oldest.replace('.', ', ')})"

    assert tomllib.loads(read("pyproject.toml"))["project"]["requires-python"] == f">={oldest}"
    assert package["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    for file in (
        "create_project.py",
        "tests/__main__.py",
        "template/setup.sh",
        "template/setup.bat",
    ):
        assert as_tuple in read(file), file
        assert f"Python {oldest} or newer" in read(file), file
    assert f"Python {oldest}" in read("README.md")


def test_the_port_is_the_same_everywhere() -> None:
    places = ["README.md", "template/README.md.jinja", "template/app/core/setup.py"]
    for file in places:
        assert set(re.findall(r"--port (\d+)", read(file))) == {"8001"}, file
        assert set(re.findall(r"localhost:(\d+)", read(file))) <= {"8001"}, file


def test_copier_has_one_version_everywhere() -> None:
    minimum = yaml.safe_load(read("copier.yml"))["_min_copier_version"].removesuffix(".0")
    private = re.search(r'^COPIER = "copier==([\d.]+)"$', read("create_project.py"), re.M)

    assert private
    assert private[1] == pins("requirements-dev.txt")["copier"]
    assert private[1].startswith(f"{minimum}.")
    assert f"copier>={minimum},<10" in read("pyproject.toml")


def test_the_readme_names_every_question_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", read("README.md"), re.MULTILINE)

    assert rows == list(questions())


def test_the_set_up_scripts_take_the_same_steps() -> None:
    shell, batch = read("template/setup.sh"), read("template/setup.bat")
    step = re.compile(r"\[?\b([1-4]/4 [^\"\r\n]+)")
    codes = re.compile(r"(?:fail |CODE=)(1\d)\b")

    assert set(step.findall(shell)) == set(step.findall(batch))
    assert set(codes.findall(shell)) == set(codes.findall(batch))


def test_env_example_names_settings_of_the_app(project: Project) -> None:
    names = set(re.findall(r"^(?:# )?([A-Z_]+)=", project.read(".env.example"), re.MULTILINE))
    files = [f"app/{zone}settings.py" for zone in ("", "core/", "auth/")]
    text = "\n".join(project.read(file) for file in files if project.has(file))
    settings = re.findall(r"^    ([a-z_]+): ", text, re.MULTILINE)

    assert names <= {name.upper() for name in settings}


@pytest.mark.parametrize(("document", "requirements"), [("security", 86), ("operating", 29)])
def test_every_requirement_has_a_test_of_its_id_or_a_reason(
    document: str, requirements: int
) -> None:
    text = read(f"template/docs/{document}.md.jinja")
    rows = re.findall(r"^\| ([A-Z]\d+) \|.*\| ([^|]+) \|$", text, re.M)
    files = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("template/tests/**/*.py")]
    names = "\n".join(re.findall(r"def (test_\w+)", "".join(f.read_text("utf-8") for f in files)))

    assert len(rows) == requirements
    for number, where in rows:
        has_test = re.search(rf"_{number.lower()}_", names) is not None
        assert has_test == where.startswith("test"), number


def test_p4_a_project_installs_few_libraries(generate: Generate) -> None:
    """Without development tools, on Linux. Raise the number deliberately if you add one."""
    for auth, most in ((True, 39), (False, 29)):
        package = tomllib.loads(generate(auth=auth).read("pyproject.toml"))["project"]
        assert len(installed_by(package["dependencies"])) <= most


def test_p4_ruff_looks_for_what_is_unsafe(project: Project) -> None:
    assert "S" in tomllib.loads(project.read("pyproject.toml"))["tool"]["ruff"]["lint"]["select"]


def installed_by(requirements: list[str]) -> set[str]:
    """The libraries that these bring here, themselves and those that they need."""
    found: set[str] = set()
    wanted = [Requirement(requirement) for requirement in requirements]
    while wanted:
        requirement = wanted.pop()
        name = requirement.name.lower().replace("_", "-")
        extras = {"", *requirement.extras}
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            applies = any(
                needed.marker is None or needed.marker.evaluate({"extra": extra})
                for extra in extras
            )
            if applies and needed.name.lower().replace("_", "-") not in found:
                wanted.append(needed)
        found.add(name)
    return found


def test_whose_file_is_whose_is_the_same_everywhere(generate: Generate) -> None:
    config = yaml.safe_load(read("copier.yml"))
    yours, shared = config["_skip_if_exists"], config["shared"]["default"]
    (row,) = [line for line in read("docs/upgrading.md").splitlines() if "| shared |" in line]

    assert yours == ["/README.md"]
    assert re.findall(r"`([^`]+)`", row) == shared
    for answers in combinations():
        project = generate(**answers)
        there = [file for file in shared if project.has(file)]
        of_options = {".github", "app/permissions.py"}
        assert set(shared) - set(there) <= of_options
        assert ", ".join(there) in project.read("README.md")
