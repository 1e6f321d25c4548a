"""Alembic's environment: which database to migrate, and in what kind of transaction."""

import asyncio
import logging
from pathlib import Path
from typing import Literal

from alembic import context
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

import app.models  # noqa: F401  (registers every table)
from app.db.base import Base, UtcDateTime
from app.db.engine import WAL, parse_url, take_over_transactions
from app.db.migration_guard import MigrationGuard
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
    guard = MigrationGuard(connection)
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=is_sqlite,
        compare_type=True,
        compare_server_default=True,
        render_item=render_item,
        # So is DDL on SQLite, once the driver no longer commits before it.
        transactional_ddl=True,
        # It passes its arguments by name, which its own type does not say.
        on_version_apply=guard.look_after_step,  # type: ignore[arg-type]
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
