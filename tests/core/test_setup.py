"""What setup says at its end, and the first commit, which it offers to a person at a terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.settings import PROJECT_FOLDER
from app.core.setup import print_next_commands

pty = pytest.importorskip("pty")  # Windows has none

COMMIT = "from app.core.setup import commit_to_git; commit_to_git()"


def offer_commit(folder: Path, **environment: str) -> str:
    """Press Enter at the question, and return what the terminal shows."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", COMMIT],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT_FOLDER), **environment},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ) as process:
        os.write(controller, b"\n")
        process.wait(60)
    shown = os.read(controller, 10_000).decode()
    os.close(controller)
    os.close(terminal)
    return shown


def test_the_first_commit_is_made(tmp_path: Path) -> None:
    identity = {"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.com"}
    identity |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in identity.items()}
    (tmp_path / "README.md").write_text("Books", "utf-8")

    assert "[setup] Committed." in offer_commit(tmp_path, **identity)


def test_someone_without_a_name_in_git_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "gitconfig").write_text("[user]\nuseConfigOnly = true\n", "utf-8")
    unknown = {"GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"), "GIT_CONFIG_NOSYSTEM": "1"}

    shown = offer_commit(tmp_path, **unknown)

    assert "git config --global user.name" in shown
    assert "[setup] git could not commit it (see above)." in shown
    assert "commit it in its folder" in shown


@pytest.mark.parametrize("database_is_new", [True, False])
def test_only_a_new_database_needs_an_administrator(
    database_is_new: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("app.auth")
    monkeypatch.chdir(PROJECT_FOLDER)

    print_next_commands("", database_is_new)

    shown = capsys.readouterr().out
    assert ("user create-admin" in shown) == database_is_new
    assert "uvicorn app.main:app" in shown
