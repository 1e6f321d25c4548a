"""auth: the id of a login session is never given again

Revision ID: 7a90e4d1c6f8
Revises: 41d7a60c93be
Create Date: 2026-11-26 05:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "7a90e4d1c6f8"
down_revision = "41d7a60c93be"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context = op.get_context()
    # PostgreSQL never does. SQLite needs a new table, which `--sql` cannot build from the old one.
    if context.dialect.name != "sqlite" or context.as_sql:
        return
    options = {"sqlite_autoincrement": True}
    # A project that was without the login for a while may have dropped it.
    if sa.inspect(op.get_bind()).has_table("sessions"):
        with op.batch_alter_table("sessions", recreate="always", table_kwargs=options):
            pass


def downgrade() -> None:
    """Older code works with the new table, and must not give ids again either."""
