"""auth: an index for the search of users

Revision ID: b5d20e9f4a37
Revises: c3f07a5e9b21
Create Date: 2026-11-26 10:00:00+00:00
"""

import logging

from alembic import op
from sqlalchemy.exc import DBAPIError

revision = "b5d20e9f4a37"
down_revision = "c3f07a5e9b21"
branch_labels = None
depends_on = None

logger = logging.getLogger("alembic")

# The index has no copy of the texts. To remove one, FTS5 needs the text as it was. The separators
# char(31, 31) let a search find one or two letters at the start of a name.
ON_SQLITE = """
CREATE VIRTUAL TABLE users_search
USING fts5(text, content='', columnsize=0, tokenize='trigram case_sensitive 1');

INSERT INTO users_search (rowid, text)
SELECT id, char(31, 31) || username || char(31, 31) || email FROM users ORDER BY id;

CREATE TRIGGER users_search_insert AFTER INSERT ON users BEGIN
    INSERT INTO users_search (rowid, text)
    VALUES (new.id, char(31, 31) || new.username || char(31, 31) || new.email);
END;

CREATE TRIGGER users_search_delete AFTER DELETE ON users BEGIN
    INSERT INTO users_search (users_search, rowid, text)
    VALUES ('delete', old.id, char(31, 31) || old.username || char(31, 31) || old.email);
END;

CREATE TRIGGER users_search_update AFTER UPDATE OF id, username, email ON users BEGIN
    INSERT INTO users_search (users_search, rowid, text)
    VALUES ('delete', old.id, char(31, 31) || old.username || char(31, 31) || old.email);
    INSERT INTO users_search (rowid, text)
    VALUES (new.id, char(31, 31) || new.username || char(31, 31) || new.email);
END;
"""
ON_POSTGRESQL = """
CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE INDEX users_search ON users USING gin (username gin_trgm_ops, email gin_trgm_ops);
"""


def upgrade() -> None:
    context = op.get_context()
    script = ON_SQLITE if context.dialect.name == "sqlite" else ON_POSTGRESQL
    statements = script.strip().split("\n\n")
    if context.as_sql:
        for statement in statements:
            op.execute(statement.rstrip(";"))
        return
    connection = op.get_bind()
    try:
        with connection.begin_nested():
            for statement in statements:
                connection.exec_driver_sql(statement)
    except DBAPIError as error:
        # It finds the same without an index.
        logger.warning("The search of users has no index and reads all rows: %s", error.orig)


def downgrade() -> None:
    if op.get_context().dialect.name != "sqlite":
        op.execute("DROP INDEX IF EXISTS users_search")
        return
    for event in ("insert", "delete", "update"):
        op.execute(f"DROP TRIGGER IF EXISTS users_search_{event}")
    op.execute("DROP TABLE IF EXISTS users_search")
