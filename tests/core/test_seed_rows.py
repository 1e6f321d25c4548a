"""Seed rows, in a table that has rows of the owner, too."""

from itertools import count
from typing import Any

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, create_engine, insert

from app.core.seed_data import missing_seed_rows, register_seed_rows

METADATA = MetaData()
GENRES = Table(
    "genres",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), unique=True),
)
register_seed_rows(METADATA, "genres", "name", [{"name": "crime"}, {"name": "poetry"}])


def count_steps(connection: Connection) -> int:
    """How many of SQLite's instructions it takes to look for missing seed rows."""
    steps = count()
    driver: Any = connection.connection.dbapi_connection
    driver.set_progress_handler(lambda: next(steps) and None, 1)
    assert missing_seed_rows(connection, METADATA) == ["genres: poetry"]
    driver.set_progress_handler(None, 0)
    return next(steps)


def test_only_seed_rows_are_read_to_find_the_missing_ones() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        METADATA.create_all(connection)
        connection.execute(insert(GENRES), [{"name": "crime"}])
        few = count_steps(connection)
        connection.execute(insert(GENRES), [{"name": f"genre {n}"} for n in range(10_000)])
        many = count_steps(connection)
    engine.dispose()

    assert many <= few + 10
