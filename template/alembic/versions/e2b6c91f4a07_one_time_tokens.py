"""auth: the tokens of links in emails

Revision ID: e2b6c91f4a07
Revises: e58b1f0c27d4
Create Date: 2026-11-26 10:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "e2b6c91f4a07"
down_revision = "e58b1f0c27d4"
branch_labels = None
depends_on = None

BigInt = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "one_time_tokens",
        sa.Column("id", BigInt, nullable=False),
        sa.Column("user_id", BigInt, nullable=True),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_one_time_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_one_time_tokens_token_hash")),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_one_time_tokens_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("length(purpose) <= 32", name=op.f("ck_one_time_tokens_purpose_length")),
        sa.CheckConstraint(
            "length(token_hash) = 64", name=op.f("ck_one_time_tokens_token_hash_length")
        ),
        sa.CheckConstraint("length(email) <= 254", name=op.f("ck_one_time_tokens_email_length")),
    )
    op.create_index(op.f("ix_one_time_tokens_user_id"), "one_time_tokens", ["user_id"])
    op.create_index(op.f("ix_one_time_tokens_email"), "one_time_tokens", ["email"])
    op.create_index(op.f("ix_one_time_tokens_expires_at"), "one_time_tokens", ["expires_at"])


def downgrade() -> None:
    op.drop_table("one_time_tokens")
