"""auth: mails that wait to be sent

Revision ID: e58b1f0c27d4
Revises: 6c0f4b83e2a9
Create Date: 2026-11-26 10:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "e58b1f0c27d4"
down_revision = "6c0f4b83e2a9"
branch_labels = None
depends_on = None

BigInt = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "outgoing_mails",
        sa.Column("id", BigInt, nullable=False),
        sa.Column("recipient", sa.String(254), nullable=False),
        sa.Column("template", sa.String(64), nullable=False),
        sa.Column("variables", sa.JSON(), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(500), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outgoing_mails")),
        sa.CheckConstraint(
            "length(recipient) <= 254", name=op.f("ck_outgoing_mails_recipient_length")
        ),
        sa.CheckConstraint(
            "length(template) <= 64", name=op.f("ck_outgoing_mails_template_length")
        ),
        sa.CheckConstraint(
            "length(last_error) <= 500", name=op.f("ck_outgoing_mails_last_error_length")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_outgoing_mails_queued_at"), "outgoing_mails", ["queued_at"])
    op.create_index(
        op.f("ix_outgoing_mails_next_attempt_at"), "outgoing_mails", ["next_attempt_at"]
    )


def downgrade() -> None:
    op.drop_table("outgoing_mails")
