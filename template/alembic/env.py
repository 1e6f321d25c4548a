"""Alembic's environment: which database to migrate, and in what kind of transaction."""

import asyncio
import logging

from alembic import context
from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

import app.models  # noqa: F401  (registers every table)
from app.db.base import Base
from app.db.engine import WAL, parse_url, take_over_transactions
from app.settings import load_settings

logging.basicConfig(format="%(message)s")
logging.getLogger("alembic").setLevel(logging.INFO)

# One migration waits for another, or for a writer, this long. Foreign keys are off because SQLite
# alters a table by replacing it, which would delete every row that refers to it with a CASCADE.
PRAGMAS = {**WAL, "busy_timeout": 60_000, "foreign_keys": "OFF"}


def database_url() -> URL:
    """`-x url=...` wins over DATABASE_URL, which wins over alembic.ini."""
    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        settings = load_settings()
        named = "database_url" in settings.model_fields_set
        url = settings.database_url if named else context.config.get_main_option("sqlalchemy.url")
    return parse_url(url or "")


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        compare_server_default=True,
        # So is DDL on SQLite, once the driver no longer commits before it.
        transactional_ddl=True,
    )
    context.run_migrations()
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if broken:
            raise RuntimeError(f"Rows would be left that refer to nothing: {broken[:5]}")


def migrate_sync(url: URL) -> None:
    engine = create_engine(url)
    take_over_transactions(engine, "BEGIN IMMEDIATE", PRAGMAS)
    with engine.begin() as connection:
        migrate(connection)
    engine.dispose()


async def migrate_async(url: URL) -> None:
    engine = create_async_engine(url)
    take_over_transactions(engine.sync_engine, "BEGIN IMMEDIATE", PRAGMAS)
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
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


if (connection := context.config.attributes.get("connection")) is not None:
    migrate(connection)
elif context.is_offline_mode():
    print_sql(database_url())
elif (url := database_url()).get_dialect().is_async:
    asyncio.run(migrate_async(url))
else:
    migrate_sync(url)
