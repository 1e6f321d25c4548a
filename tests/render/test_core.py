"""The tests in tests/core, which run inside a generated project."""

from pathlib import Path

import pytest

from tests.support.internals import run_internal_tests, with_internal_tests
from tests.support.projects import Generate


@pytest.mark.parametrize(
    "auth",
    [pytest.param(True, id="auth"), pytest.param(False, id="plain", marks=pytest.mark.slow)],
)
def test_the_machinery_of_a_project_passes_its_tests(
    generate: Generate, tmp_path: Path, auth: bool
) -> None:
    run_internal_tests(with_internal_tests(generate(auth=auth), tmp_path), "core/test_*.py")


def test_these_tests_have_correct_types(generate: Generate, tmp_path: Path) -> None:
    project = with_internal_tests(generate(auth=True), tmp_path)

    project.succeed("mypy", "tests/core", "tests/auth_internals")
