"""The tests in tests/auth_internals, which run inside a generated project."""

from pathlib import Path

import pytest

from tests.support.internals import run_internal_tests, with_internal_tests
from tests.support.projects import Generate


# In parts, because a command may take five minutes.
@pytest.mark.parametrize("files", ["[a-k]", "[lm]", "[n-z]"])
def test_the_login_of_a_project_passes_its_tests(
    generate: Generate, tmp_path: Path, files: str
) -> None:
    project = with_internal_tests(generate(auth=True), tmp_path)

    run_internal_tests(project, f"auth_internals/test_{files}*.py")
