"""Commands in a folder that their user may not enter, such as /root after `runuser`."""

import sqlite3
from pathlib import Path
from typing import Any, cast

import pytest
from alembic.runtime.environment import EnvironmentContext

from app.core.backup import BackupError, back_up, restore
from app.core.checks import _check_file
from app.core.commands import _prepare
from app.core.copy_database import CopyError, copy_database
from app.core.migrations import run_migrations
from app.core.sqlite import DatabaseFile
from app.models import metadata
from app.settings import load_settings
from tests.conftest import alembic_config


def test_a_command_runs_in_a_folder_that_its_user_may_not_enter(closed_folder: Path) -> None:
    _prepare()


def test_check_explains_a_database_in_a_folder_that_its_user_may_not_enter(
    closed_folder: Path,
) -> None:
    (error,) = [r.message for r in _check_file(closed_folder / "app.db") if r.level == "error"]

    assert "or run this as the user of the app" in error
    with pytest.raises(sqlite3.OperationalError, match="cannot be opened: Permission denied"):
        DatabaseFile(closed_folder / "app.db")._check()


def test_a_migration_explains_such_a_folder(closed_folder: Path) -> None:
    for file in (closed_folder / "app.db", closed_folder / "data/app.db"):
        # Without the scripts, which this user may not be able to read.
        context = EnvironmentContext(alembic_config(f"sqlite:///{file}"), cast(Any, None))
        with context, pytest.raises(SystemExit, match="this user may not enter it"):
            run_migrations(metadata, load_settings)


def test_backup_restore_and_copy_explain_such_a_file(closed_folder: Path) -> None:
    file = closed_folder / "app.db"

    with pytest.raises(BackupError, match=r"cannot write .*: Permission denied"):
        back_up(file, file)
    with pytest.raises(BackupError, match=r"app.db is not a database of this app: .*denied"):
        restore(file, file, metadata)
    with pytest.raises(CopyError, match="does not exist"):
        copy_database(f"sqlite:///{file}", f"sqlite:///{file}", metadata, lambda *_: None)
