"""Alembic's environment: which database to migrate, and in what kind of transaction."""

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from alembic import context
from alembic.runtime.migration import MigrationInfo
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

import app.models  # noqa: F401  (registers every table)
from app.db.backup import back_up, file_has_own_rows, opened
from app.db.base import Base, UtcDateTime
from app.db.engine import WAL, parse_url, take_over_transactions
from app.db.reference import add_reference_rows, reference_statements
from app.settings import load_settings

logging.basicConfig(format="%(message)s")
logger = logging.getLogger("alembic")
logger.setLevel(logging.INFO)

# One migration waits for another, or for a writer, this long. Foreign keys are off because SQLite
# alters a table by replacing it, which would delete every row that refers to it with a CASCADE.
PRAGMAS = {"busy_timeout": 60_000, **WAL, "foreign_keys": "OFF"}


def database_url() -> URL:
    """`-x url=...` wins over DATABASE_URL, which wins over alembic.ini."""
    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        settings = load_settings()
        named = "database_url" in settings.model_fields_set
        url = settings.database_url if named else context.config.get_main_option("sqlalchemy.url")
    parsed = parse_url(url or "")
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        file = Path(parsed.database).absolute()
        if not file.parent.is_dir():
            raise SystemExit(f"The folder of the database does not exist: {file.parent}")
        # SQLite would make it for all to read; its -wal and -shm take after it.
        if not file.exists() and not context.is_offline_mode():
            file.touch(mode=0o600)
    return parsed


def migrate(connection: Connection) -> None:
    """Run Alembic's command in the transaction that is open on this connection."""
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite and connection.exec_driver_sql("PRAGMA foreign_keys").scalar():
        raise RuntimeError("foreign_keys has to be off before the transaction begins: see env.py")
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('alembic'))"))
    guard = Guard(connection, is_sqlite=is_sqlite)
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=is_sqlite,
        compare_type=True,
        compare_server_default=True,
        render_item=render_item,
        # So is DDL on SQLite, once the driver no longer commits before it.
        transactional_ddl=True,
        on_version_apply=guard.look_after_step,
    )
    context.run_migrations()
    guard.refuse_new_orphans()
    if has_reached_the_head() and not guard.has_stamped:
        add_reference_rows(connection)


def has_reached_the_head() -> bool:
    """Whether this was an upgrade to the head, and not a look at the database or a way back."""
    migration = context.get_context()
    heads = context.script.get_heads()
    return "destination_rev" in migration.opts and set(migration.get_current_heads()) == set(heads)


def render_item(kind: str, item: object, _: object) -> str | Literal[False]:
    """A migration stands on its own: it names SQLAlchemy's type, not the app's."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


class Guard:
    """Keeps a copy of a SQLite database with rows before it changes, and checks its references after.

    Alembic calls it after each step, in the migration's transaction. Another connection still sees
    the database as it was before that, and nobody else can have written to it since.
    """

    def __init__(self, connection: Connection, *, is_sqlite: bool) -> None:
        self.connection = connection
        self.is_sqlite = is_sqlite
        self.has_stamped = False
        self.file = Path(connection.engine.url.database or "").resolve()
        self.orphans: int | None = None

    def look_after_step(self, *, step: MigrationInfo, **_: object) -> None:
        self.has_stamped = self.has_stamped or step.is_stamp
        if not self.is_sqlite or self.orphans is not None or step.is_stamp:
            return
        with opened(self.file, "ro") as before:
            self.orphans = len(before.execute("PRAGMA foreign_key_check").fetchall())
        if file_has_own_rows(self.file):
            folder = self.file.parent / "backups"
            folder.mkdir(mode=0o700, exist_ok=True)
            revision = "-".join(step.source_revision_ids) or "base"
            copy = folder / f"{self.file.stem}-{revision}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.db"
            back_up(self.file, copy)
            logger.info("Backed up to %s", copy)

    def refuse_new_orphans(self) -> None:
        if self.orphans is None:
            return
        orphans = self.connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if len(orphans) > self.orphans:
            raise RuntimeError(f"Rows would be left that refer to nothing, as in {orphans[-5:]}")


def migrate_sync(url: URL) -> None:
    engine = create_engine(url, hide_parameters=True)
    take_over_transactions(engine, "BEGIN IMMEDIATE", PRAGMAS)
    try:
        with engine.begin() as connection:
            migrate(connection)
    finally:
        engine.dispose()


async def migrate_async(url: URL) -> None:
    engine = create_async_engine(url, hide_parameters=True)
    take_over_transactions(engine.sync_engine, "BEGIN IMMEDIATE", PRAGMAS)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


def print_sql(url: URL) -> None:
    """`--sql`: write the statements to standard output instead of running them."""
    context.configure(
        url=url.render_as_string(hide_password=False),
        target_metadata=Base.metadata,
        literal_binds=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()
        if context.get_context().opts.get("destination_rev") == "head":
            for statement in reference_statements(url.get_backend_name()):
                context.execute(statement)


if (connection := context.config.attributes.get("connection")) is not None:
    migrate(connection)
elif context.is_offline_mode():
    print_sql(database_url())
elif (url := database_url()).get_dialect().is_async:
    asyncio.run(migrate_async(url))
else:
    migrate_sync(url)
