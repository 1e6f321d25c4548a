"""The github option, and this repository's own workflows."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.projects import ROOT, Generate, Project

WORKFLOWS = [
    *sorted((ROOT / ".github/workflows").glob("*.yml")),
    *sorted((ROOT / "template/.github/workflows").glob("*.yml")),
]


@pytest.mark.parametrize("folder", [".github", "template/.github"])
def test_p3_zizmor_finds_nothing_in_the_workflows(folder: str) -> None:
    zizmor = Path(sys.executable).with_name("zizmor")
    command = [str(zizmor), "--offline", "--no-progress", "--persona=pedantic", folder]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    assert "No findings to report" in run.stdout + run.stderr


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: str(file.relative_to(ROOT)))
def test_p3_each_action_is_pinned_and_the_same_everywhere(file: Path) -> None:
    used = re.findall(r"uses: (\S+@\S+)( # v\S+)?$", file.read_text("utf-8"), re.MULTILINE)
    everywhere = {
        pin for other in WORKFLOWS for pin in re.findall(r"uses: (\S+)", other.read_text())
    }

    assert used
    for action, version in used:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action)
        assert version
        assert [pin for pin in everywhere if pin.split("@")[0] == action.split("@")[0]] == [action]


def test_p3_a_job_that_may_write_runs_nothing_of_the_template() -> None:
    for file in WORKFLOWS:
        workflow = load(file)
        assert workflow["permissions"] == {}
        for job in workflow["jobs"].values():
            scripts = " ".join(step.get("run", "") for step in job["steps"])
            if "write" in job["permissions"].values():
                assert not re.search(r"setup\.|\.venv|copier|pytest|python", scripts)
            else:
                assert job["permissions"] == {"contents": "read"}
                assert "secrets." not in yaml.dump(job)


def test_every_script_in_a_workflow_is_bash_that_parses() -> None:
    for file in WORKFLOWS:
        for job in load(file)["jobs"].values():
            for step in job["steps"]:
                if "run" in step and step.get("shell") != "pwsh":
                    subprocess.run(["bash", "-n", "-c", step["run"]], check=True)


def test_the_site_is_built_strictly_before_a_job_without_its_code_publishes_it() -> None:
    build, publish = load(ROOT / ".github/workflows/site.yml")["jobs"].values()

    assert "python -m tools.site" in [step.get("run") for step in build["steps"]]
    assert build["steps"][-1]["with"] == {"path": "site"}
    assert publish["needs"] == "build"
    assert [step["uses"].split("@")[0] for step in publish["steps"]] == ["actions/deploy-pages"]


def test_github_changes_no_file_of_the_program(generate: Generate) -> None:
    with_github, without = generate(github=True), generate(github=False)
    theirs = {file for file in with_github.files() if file.parts[0] == ".github"}

    assert {*with_github.files()} - {*without.files()} == theirs
    assert not without.has(".github")
    assert different(with_github, without) == {".copier-answers.yml", "README.md"}
    assert without.mentions("github") == [".copier-answers.yml"]


def different(one: Project, other: Project) -> set[str]:
    both = {*map(str, one.files())} & {*map(str, other.files())}
    return {file for file in both if one.read(file) != other.read(file)}


def load(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
    return loaded
