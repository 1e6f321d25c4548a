"""What `alembic/env.py` does: choose the database, copy it, migrate in one transaction."""

import asyncio
import logging
import os
import warnings
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.util import CommandError
from sqlalchemy import URL, Connection, MetaData, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.core.autogenerate import PLUGINS, Filter, render_item
from app.core.backup import BackupError, back_up, file_has_own_rows, open_file, size_of_copy
from app.core.batches import BatchSQLiteImpl
from app.core.compatibility import CompatibilityRecorder, is_ahead_and_compatible
from app.core.database import parse_url
from app.core.seed_data import insert_missing_seed_rows, seed_statements
from app.core.settings import CoreSettings
from app.core.sqlite import WAL, configure_sqlite_begin

logger = logging.getLogger("alembic")

# The revisions that a database is at: one, or none before the first migration.
Heads = frozenset[str]

# A migration waits this long for a writer, or for another migration. Foreign keys are off because
# SQLite alters a table by replacing it, which would delete all rows that refer to it with CASCADE.
_PRAGMAS = {"busy_timeout": 60_000, **WAL, "foreign_keys": "OFF"}


def run_migrations(metadata: MetaData, load_settings: Callable[[], CoreSettings]) -> None:
    """Run the Alembic command that loaded `env.py`."""
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    connection: Connection | None = context.config.attributes.get("connection")
    with warnings.catch_warnings():
        # Batches, autogenerate and the list of compatible releases take care of both.
        warnings.filterwarnings("ignore", "Skipped unsupported reflection of expression-based")
        warnings.filterwarnings("ignore", "Unnamed CHECK constraint on reflected table")
        if connection is not None:
            return _migrate(connection, metadata)
        url = _database_url(load_settings)
        if context.is_offline_mode():
            return _print_sql(url, metadata)
        copied = _back_up_first(url, metadata)
        if url.get_dialect().is_async:
            asyncio.run(_migrate_async(url, metadata, copied))
        else:
            _migrate_sync(url, metadata, copied)


def _database_url(load_settings: Callable[[], CoreSettings]) -> URL:
    """`-x url=...` wins over DATABASE_URL, which wins over alembic.ini."""
    if url := context.get_x_argument(as_dictionary=True).get("url"):
        parsed = parse_url(url, Path.cwd())
    else:
        settings = load_settings()
        is_set = "database_url" in settings.model_fields_set
        in_file = context.config.get_main_option("sqlalchemy.url", "")
        parsed = parse_url(settings.database_url if is_set else in_file)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        file = Path(parsed.database)
        if not os.access(file.parent, os.X_OK):
            raise SystemExit(
                f"{file.parent} does not exist: create it, or fix DATABASE_URL. If it exists, this "
                "user may not enter it"
            )
        # SQLite would create it readable for everybody; the -wal and -shm files copy its mode.
        if not file.exists() and not context.is_offline_mode():
            file.touch(mode=0o600)
    return parsed


def _back_up_first(url: URL, metadata: MetaData) -> Heads | None:
    """Copy a SQLite database that an upgrade or a downgrade is about to change.

    Returns the revision of the copy. The app can write while the copy is made, which takes most of
    the time of a migration.
    """
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    engine = create_engine(url.set(drivername="sqlite"), connect_args={"timeout": 60})
    try:
        with engine.connect() as connection:
            # Alembic would log twice what the database can do.
            logging.getLogger(MigrationContext.__module__).disabled = True
            context.configure(connection=connection)
            migration = context.get_context()
            heads = migration.get_current_heads()
            # Other commands, such as `stamp`, have none or several.
            if not isinstance(migration.opts.get("destination_rev"), str):
                return None
            if is_ahead_and_compatible(connection, context.script):
                return None
            _reject_unknown_heads(migration)
            steps = [*migration.opts["fn"](heads, migration)]
    finally:
        logging.getLogger(MigrationContext.__module__).disabled = False
        engine.dispose()
    copy = _back_up(Path(url.database).resolve(), heads, metadata) if steps else None
    return frozenset(heads) if copy else None


def _back_up(file: Path, heads: Iterable[str], metadata: MetaData) -> Path | None:
    """Copy a database to `backups/`, if any table has rows."""
    if not file_has_own_rows(file, metadata):
        return None
    folder = file.parent / "backups"
    folder.mkdir(mode=0o700, exist_ok=True)
    revision = "-".join(sorted(heads)) or "base"
    copy = folder / f"{file.stem}-{revision}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.db"
    try:
        logger.info("Backing up %s (%.1f MB)", file, size_of_copy(file) / 1e6)
        back_up(file, copy)
    except BackupError as error:
        raise CommandError(f"Nothing was migrated: {error}") from None
    logger.info("Backed up to %s", copy)
    return copy


def _migrate_sync(url: URL, metadata: MetaData, copied: Heads | None) -> None:
    engine = create_engine(url, hide_parameters=True)
    configure_sqlite_begin(engine, "BEGIN IMMEDIATE", _PRAGMAS)
    try:
        with engine.begin() as connection:
            _migrate(connection, metadata, copied)
    finally:
        engine.dispose()


async def _migrate_async(url: URL, metadata: MetaData, copied: Heads | None) -> None:
    engine = create_async_engine(url, hide_parameters=True)
    configure_sqlite_begin(engine.sync_engine, "BEGIN IMMEDIATE", _PRAGMAS)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_migrate, metadata, copied)
    finally:
        await engine.dispose()


def _migrate(connection: Connection, metadata: MetaData, copied: Heads | None = None) -> None:
    """Run Alembic's command in the open transaction of this connection.

    `copied` is the revision at which the database has been backed up.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite and connection.exec_driver_sql("PRAGMA foreign_keys").scalar():
        raise RuntimeError("turn foreign_keys off before the transaction begins")
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('alembic'))"))
    guard = MigrationGuard(connection, metadata)
    recorder = CompatibilityRecorder(context.script, connection)
    filters = Filter(connection, metadata)
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=is_sqlite,
        compare_type=True,
        compare_server_default=True,
        render_item=render_item,
        autogenerate_plugins=PLUGINS,
        include_name=filters.include_name,
        include_object=filters.include_object,
        # True on SQLite, too, now that the driver does not commit before each DDL statement.
        transactional_ddl=True,
        # Alembic passes the arguments by name, which its own type does not express.
        on_version_apply=[guard.after_step, recorder.after_step],  # type: ignore[arg-type]
    )
    is_upgrade = context.get_context().opts.get("destination_rev") in {"head", "heads"}
    if is_upgrade and is_ahead_and_compatible(connection, context.script):
        return logger.info("The database is ahead of this code, which works with it")
    _reject_unknown_heads(context.get_context())
    # Another migration may have finished since the copy was made.
    guard.needs_copy = copied != frozenset(context.get_context().get_current_heads())
    context.run_migrations()
    guard.reject_new_orphans()
    if _is_upgraded_to_head() and not guard.has_stamped:
        insert_missing_seed_rows(connection, metadata)


def _reject_unknown_heads(migration: MigrationContext) -> None:
    """Alembic would only say that it can't locate the revision."""
    # `stamp --purge` reads none.
    for head in () if migration.opts.get("purge") else migration.get_current_heads():
        try:
            context.script.get_revision(head)
        except CommandError:
            raise CommandError(
                f"The database is at {head}, a migration that alembic/versions lacks. Go back to the "
                "branch or commit that has it and run `alembic downgrade`, or restore a backup"
            ) from None


def _is_upgraded_to_head() -> bool:
    """Whether the command was an upgrade to the head, not a downgrade or a command that only reads."""
    migration = context.get_context()
    heads = context.script.get_heads(consider_depends_on=True)
    return "destination_rev" in migration.opts and set(migration.get_current_heads()) == set(heads)


def _print_sql(url: URL, metadata: MetaData) -> None:
    """With `--sql`: print the statements instead of running them."""
    recorder = CompatibilityRecorder(context.script, None)
    context.configure(
        url=url.render_as_string(hide_password=False),
        target_metadata=metadata,
        literal_binds=True,
        transactional_ddl=True,
        on_version_apply=recorder.after_step,  # type: ignore[arg-type]
    )
    with context.begin_transaction():
        context.run_migrations()
        if context.get_context().opts.get("destination_rev") in {"head", "heads"}:
            for statement in seed_statements(url.get_backend_name(), metadata):
                context.execute(statement)


class MigrationGuard:
    """Backs up a SQLite database before it changes, and rejects a migration that leaves orphans.

    An orphan is a row with a reference to a missing row. PostgreSQL allows none by itself, and
    brings its own backup tools.
    """

    def __init__(self, connection: Connection, metadata: MetaData) -> None:
        self.has_stamped = False
        self.needs_copy = True
        self._connection = connection
        self._metadata = metadata
        self._is_sqlite = connection.dialect.name == "sqlite"
        self._file = Path(connection.engine.url.database or "").resolve()
        self._has_changed = False

    def after_step(self, *, ctx: MigrationContext, step: MigrationInfo, **_: Any) -> None:
        """Alembic calls it after each step. Other connections still see what was before the first."""
        if isinstance(ctx.impl, BatchSQLiteImpl):
            ctx.impl.reject_losses()
        self.has_stamped = self.has_stamped or step.is_stamp
        if not self._is_sqlite or self._has_changed or step.is_stamp:
            return
        self._has_changed = True
        if self.needs_copy:
            _back_up(self._file, step.source_revision_ids, self._metadata)

    def reject_new_orphans(self) -> None:
        """Raise RuntimeError, before the commit, if there are more orphans than before."""
        if not self._has_changed:
            return
        if not (orphans := self._connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
            return
        with open_file(self._file, "ro") as before:
            count = len(before.execute("PRAGMA foreign_key_check").fetchall())
        if len(orphans) > count:
            raise RuntimeError(f"This migration leaves orphans, such as {orphans[-5:]}")
