from pathlib import Path

import pytest

from tests.support.machines import Machine, base_python, check_out


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return check_out(tmp_path_factory.mktemp("checkout"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with only Python and git."""
    return Machine(tmp_path / "home", {"python3": base_python()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A path with characters that break careless scripts."""
    path = tmp_path / "My Projects ü & co"
    path.mkdir()
    return path
