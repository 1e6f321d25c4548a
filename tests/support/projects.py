"""A generated project as tests see it, and the sets of answers that there are."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]

Answers = dict[str, Any]


@dataclass(frozen=True)
class Project:
    """A rendered project, with the questions that tests ask of it."""

    path: Path
    answers: Answers

    def has(self, file: str) -> bool:
        return (self.path / file).exists()

    def read(self, file: str) -> str:
        return (self.path / file).read_text("utf-8")

    def files(self) -> list[Path]:
        """Every rendered file, relative to the project."""
        return sorted(
            file.relative_to(self.path) for file in self.path.rglob("*") if file.is_file()
        )

    def mentions(self, word: str) -> list[str]:
        """Where a word stands, in file names or in text."""
        return [
            str(file)
            for file in self.files()
            if word in str(file) or word in self.read(str(file)).casefold()
        ]

    def run(
        self, *command: str, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """`python -m ...` in the project, with this environment's libraries and no settings."""
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.path,
            env={**clean_environment(), **environment},
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=600,
            check=False,
        )

    def succeed(self, *command: str, stdin: str = "", **environment: str) -> str:
        run = self.run(*command, stdin=stdin, **environment)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout + run.stderr


Generate = Callable[..., Project]


def clean_environment() -> dict[str, str]:
    """This process's environment without what would set up a project or a test run in it."""
    names = {"ENVIRONMENT", "DATABASE_URL", "VIRTUAL_ENV", "PYTHONPATH", "PYTEST_ADDOPTS"}
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {
        **kept,
        # A project's tests run with the project's plugins: it has none.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # What mypy found in the libraries holds for every project.
        "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "projects"),
    }


def questions(template: Path = ROOT) -> dict[str, Any]:
    """What copier.yml asks, without what it derives."""
    config = yaml.safe_load((template / "copier.yml").read_text("utf-8"))
    return {
        name: question
        for name, question in config.items()
        if not name.startswith("_") and question.get("when") is not False
    }


def combinations(template: Path = ROOT) -> list[Answers]:
    """Every combination of the yes-or-no questions that can be answered that way.

    A question with a `when` depends on another option and is only ever on together with it.
    """
    options = {n: q for n, q in questions(template).items() if q["type"] == "bool"}
    every = [
        dict(zip(options, values, strict=True))
        for values in itertools.product([True, False], repeat=len(options))
    ]
    return [
        answers
        for answers in every
        if not any(
            answers[name] and not answers[question["when"].strip("{} ")]
            for name, question in options.items()
            if "when" in question
        )
    ]


def describe(answers: Answers) -> str:
    return "+".join(name for name, chosen in answers.items() if chosen) or "plain"
