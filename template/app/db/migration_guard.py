"""What watches over a migration of SQLite: a copy beforehand, a check of references afterwards."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationInfo
from sqlalchemy import Connection

from app.db.backup import back_up, file_has_own_rows, opened

logger = logging.getLogger("alembic")


class MigrationGuard:
    """Copies a SQLite database with rows before it changes, and refuses a change that leaves orphans.

    An orphan is a row that refers to one that is not there. PostgreSQL allows none by itself, and is
    backed up with tools of its own.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.is_needed = connection.dialect.name == "sqlite"
        self.file = Path(connection.engine.url.database or "").resolve()
        self.has_stamped = False
        # Counted with the first step.
        self.orphans_before: int | None = None

    def look_after_step(self, *, step: MigrationInfo, **_: Any) -> None:
        """What Alembic calls after each step, in the transaction of the migration.

        Another connection still sees the database as it was before the first one, and nobody else
        can have written to it since.
        """
        self.has_stamped = self.has_stamped or step.is_stamp
        if not self.is_needed or self.orphans_before is not None or step.is_stamp:
            return
        with opened(self.file, "ro") as before:
            self.orphans_before = len(before.execute("PRAGMA foreign_key_check").fetchall())
        if file_has_own_rows(self.file):
            copy = new_copy(self.file, "-".join(step.source_revision_ids) or "base")
            back_up(self.file, copy)
            logger.info("Backed up to %s", copy)

    def refuse_new_orphans(self) -> None:
        """Before the commit: RuntimeError if more rows than before refer to nothing."""
        if self.orphans_before is None:
            return
        orphans = self.connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if len(orphans) > self.orphans_before:
            raise RuntimeError(f"Rows would be left that refer to nothing, as in {orphans[-5:]}")


def new_copy(database: Path, revision: str) -> Path:
    """Where the copy of a database at this revision goes: a new file in `backups/` beside it."""
    folder = database.parent / "backups"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{database.stem}-{revision}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.db"
