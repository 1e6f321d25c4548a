"""The scheduled update on GitHub: its own scripts, run in order, with a bare repository for GitHub.

What GitHub does is done here: checkout, artifacts, expressions, `if`, outputs. Only `gh`, which would
talk to GitHub, is a script that writes down what it was asked for.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.projects import Project, clean_environment
from tests.update.conftest import Start
from tests.update.edits import commit, git, replace

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="it runs on Linux")]

GH = """#!/bin/sh
echo "gh $*" >> "$GH_LOG"
case "$*" in
"pr list"*) if grep -q "gh pr create" "$GH_LOG"; then echo "$PULL_REQUEST"; fi ;;
"pr create"* | "pr edit"*) cp "$RUNNER_TEMP/update/description.md" "$GH_LOG.description" ;;
esac
true
"""
BRANCH = "template-update-v1001.0.0"
EXPRESSION = re.compile(r"\$\{\{ (.+?) \}\}")


@dataclass
class Runner:
    """Runs the jobs of a workflow as GitHub would, one after the other, each in a fresh clone."""

    folder: Path
    remote: Path
    # What has become of the pull request of an earlier run.
    pull_request: str = "OPEN"
    log: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir(parents=True)
        (self.folder / "temp").mkdir()
        (self.folder / "bin/gh").write_text(GH)
        (self.folder / "bin/gh").chmod(0o755)
        (self.folder / "gh.log").touch()

    def run(self, *, set_up: bool = False) -> int:
        """The exit code of the first step that fails, or 0. Setup is replaced by this environment."""
        for name in ("update", "propose"):
            clone = self.folder / name
            workflow = git(self.remote, "show", "main:.github/workflows/template-update.yml")
            self.environment = yaml.safe_load(workflow)["env"]
            job = yaml.safe_load(workflow)["jobs"][name]
            # As actions/checkout does, unless it is told otherwise.
            depth = [] if "fetch-depth" in job["steps"][0]["with"] else ["--depth=1"]
            git(self.folder, "clone", "--quiet", *depth, f"file://{self.remote}", str(clone))
            if not set_up:
                (clone / ".venv").mkdir()
                (clone / ".venv/bin").symlink_to(Path(sys.executable).parent)
            if not self.value(job.get("if", "true")):
                continue
            for step in job["steps"]:
                if "run" in step and (set_up or step["name"] != "Set up"):
                    code = self.step(clone, job, step, skip_set_up=not set_up)
                    if code:
                        return code
        return 0

    def value(self, expression: str) -> str:
        known = {
            "true": "true",
            "github.token": "token",
            "needs.update.outputs.version": self.outputs.get("version", ""),
            "steps.update.outputs.version": self.outputs.get("version", ""),
            "steps.update.outputs.failed": self.outputs.get("failed", ""),
        }
        return known[expression]

    def step(self, clone: Path, job: Any, step: Any, *, skip_set_up: bool) -> int:
        if not self.value(step.get("if", "true")):
            return 0
        given = {**self.environment, **job.get("env", {}), **step.get("env", {})}
        output = self.folder / "output"
        output.write_text("")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=clone,
            env={
                **clean_environment(),
                **{k: EXPRESSION.sub(lambda e: self.value(e[1]), v) for k, v in given.items()},
                **({"COPIER_FASTAPI_SETUP": "skip"} if skip_set_up else {}),
                "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "RUNNER_TEMP": str(self.folder / "temp"),
                "GITHUB_OUTPUT": str(output),
                "GH_LOG": str(self.folder / "gh.log"),
                "PULL_REQUEST": self.pull_request,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.log += done.stdout
        for line in output.read_text().splitlines():
            name, _, value = line.partition("=")
            self.outputs[name] = value
        return done.returncode

    @property
    def gh(self) -> str:
        return (self.folder / "gh.log").read_text()

    @property
    def description(self) -> str:
        return (self.folder / "gh.log.description").read_text()


@pytest.fixture
def origin(template: Path, tmp_path: Path) -> Project:
    folder = tmp_path / "template"
    shutil.copytree(template, folder)
    return Project(folder, {})


@pytest.fixture
def shelf(start: Start, origin: Project, tmp_path: Path) -> Project:
    """A project without login, pushed to a bare repository."""
    project = start("v1000.0.0", origin.path, auth=False)
    git(project.path, "init", "--quiet", "--initial-branch=main")
    commit(project, "Start")
    git(tmp_path, "clone", "--quiet", "--bare", str(project.path), "github.git")
    return project


def release(origin: Project) -> None:
    replace(origin, "template/app/core/errors.py", '"Not found."', '"Nothing is here."')
    commit(origin, "Next")
    git(origin.path, "tag", "v1001.0.0")


def branches(remote: Path) -> list[str]:
    return git(remote, "for-each-ref", "--format=%(refname:short)", "refs/heads").split()


def test_a_release_is_set_up_tested_and_proposed_once(
    shelf: Project, origin: Project, tmp_path: Path
) -> None:
    release(origin)
    remote = tmp_path / "github.git"
    before = git(remote, "rev-parse", "main")

    runner = Runner(tmp_path / "first", remote)
    assert runner.run(set_up=True) == 0, runner.log

    assert branches(remote) == ["main", "template-update-v1001.0.0"]
    assert git(remote, "rev-parse", "main") == before
    changed = git(remote, "diff", "--name-only", "main", "template-update-v1001.0.0").split()
    assert changed == [".copier-answers.yml", "app/core/errors.py"]
    assert "gh pr create --head template-update-v1001.0.0" in runner.gh
    assert "tests **passed** with this update" in runner.description
    assert "needs your help" not in runner.description

    again = Runner(tmp_path / "second", remote)
    (again.folder / "gh.log").write_text(runner.gh)
    proposed = git(remote, "rev-parse", BRANCH)
    assert again.run() == 0, again.log
    assert again.gh.count("gh pr create") == 1
    assert "The pull request for v1001.0.0 is up to date." in again.log
    assert git(remote, "rev-parse", BRANCH) == proposed


def test_changed_workflows_wait_in_a_patch_until_somebody_has_read_them(
    shelf: Project, origin: Project, tmp_path: Path
) -> None:
    """GitHub runs the workflows of a branch when it is pushed."""
    workflow = ".github/workflows/ci.yml"
    replace(origin, f"template/{workflow}", "timeout-minutes: 20", "timeout-minutes: 21")
    release(origin)
    remote = tmp_path / "github.git"

    runner = Runner(tmp_path / "first", remote)
    assert runner.run() == 0, runner.log

    patch = "template-update-workflows.patch"
    changed = git(remote, "diff", "--name-only", "main", BRANCH).split()
    assert changed == [".copier-answers.yml", "app/core/errors.py", patch]
    assert f"git apply --index {patch}" in runner.description
    branch = tmp_path / "branch"
    git(tmp_path, "clone", "--quiet", "--branch", BRANCH, str(remote), str(branch))
    git(branch, "apply", "--index", patch)
    assert "timeout-minutes: 21" in (branch / workflow).read_text()


@pytest.fixture
def proposed(shelf: Project, origin: Project, tmp_path: Path) -> Runner:
    """A week later: a release is proposed, and its pull request is still open."""
    release(origin)
    first = Runner(tmp_path / "first", tmp_path / "github.git")
    assert first.run() == 0, first.log
    week = Runner(tmp_path / "second", tmp_path / "github.git")
    (week.folder / "gh.log").write_text(first.gh)
    return week


def test_a_proposal_follows_the_main_branch(shelf: Project, proposed: Runner) -> None:
    """Otherwise a migration that main got since would be a second head after the merge."""
    (shelf.path / "own.py").write_text("x = 1\n")
    commit(shelf, "Own")
    git(shelf.path, "push", "--quiet", str(proposed.remote), "main")

    assert proposed.run() == 0, proposed.log

    main = git(proposed.remote, "rev-parse", "main")
    assert git(proposed.remote, "rev-parse", f"{BRANCH}^") == main
    assert f"gh pr edit {BRANCH}" in proposed.gh
    assert proposed.gh.count("gh pr create") == 1


@pytest.mark.parametrize("how", [["-m", "Mend"], ["--amend", "--no-edit"]], ids=["new", "amended"])
def test_a_branch_on_which_somebody_works_is_left_alone(
    shelf: Project, proposed: Runner, tmp_path: Path, how: list[str]
) -> None:
    url = f"file://{proposed.remote}"
    git(tmp_path, "clone", "--quiet", "--branch", BRANCH, url, "work")
    git(tmp_path / "work", "commit", "--quiet", "--allow-empty", *how)
    git(tmp_path / "work", "push", "--quiet", "--force")
    commit(shelf, "Own")
    git(shelf.path, "push", "--quiet", str(proposed.remote), "main")
    mended = git(proposed.remote, "rev-parse", BRANCH)

    assert proposed.run() == 0, proposed.log

    assert git(proposed.remote, "rev-parse", BRANCH) == mended
    assert f"{BRANCH} has commits by someone else" in proposed.log


@pytest.mark.parametrize("state", ["CLOSED", "MERGED"])
def test_what_was_declined_is_not_proposed_again(proposed: Runner, state: str) -> None:
    git(proposed.remote, "branch", "--quiet", "-D", BRANCH)
    proposed.pull_request = state

    assert proposed.run() == 0, proposed.log

    assert branches(proposed.remote) == ["main"]
    assert f"The pull request for v1001.0.0 is already {state}." in proposed.log


def test_a_conflict_is_proposed_with_its_marks_and_says_so(
    shelf: Project, origin: Project, tmp_path: Path
) -> None:
    replace(shelf, "app/core/errors.py", '"Not found."', '"Nothing here, sorry."')
    commit(shelf, "Sorry")
    remote = tmp_path / "github.git"
    git(shelf.path, "push", "--quiet", str(remote), "main")
    release(origin)

    runner = Runner(tmp_path / "runner", remote)
    assert runner.run() == 0, runner.log

    errors = git(remote, "show", "template-update-v1001.0.0:app/core/errors.py")
    assert "<<<<<<<" in errors
    assert "Nothing here, sorry." in errors
    assert "Nothing is here." in errors
    assert "**The update needs your help.**" in runner.description
    assert "tests **failed**" in runner.description
    assert "[update]     app/core/errors.py" in runner.description


def test_without_a_release_nothing_is_proposed(shelf: Project, tmp_path: Path) -> None:
    remote = tmp_path / "github.git"

    runner = Runner(tmp_path / "runner", remote)
    assert runner.run() == 0, runner.log

    assert branches(remote) == ["main"]
    assert runner.gh == ""


def test_a_template_that_is_gone_fails_the_workflow(
    shelf: Project, origin: Project, tmp_path: Path
) -> None:
    shutil.rmtree(origin.path)

    runner = Runner(tmp_path / "runner", tmp_path / "github.git")

    assert runner.run() == 1
    assert branches(runner.remote) == ["main"]
