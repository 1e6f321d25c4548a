"""auth: sessions and throttles

Revision ID: 41d7a60c93be
Revises: 8ded3252ce31
Create Date: 2026-11-23 12:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "41d7a60c93be"
down_revision = "8ded3252ce31"
branch_labels = None
depends_on = None

BigInt = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", BigInt, nullable=False),
        sa.Column("user_id", BigInt, nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("user_agent", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_sessions_token_hash")),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_sessions_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("length(token_hash) = 64", name=op.f("ck_sessions_token_hash_length")),
        sa.CheckConstraint("length(address) <= 64", name=op.f("ck_sessions_address_length")),
        sa.CheckConstraint("length(user_agent) <= 200", name=op.f("ck_sessions_user_agent_length")),
    )
    op.create_index(op.f("ix_sessions_user_id"), "sessions", ["user_id"])
    op.create_index(op.f("ix_sessions_last_used_at"), "sessions", ["last_used_at"])
    op.create_table(
        "throttles",
        sa.Column("id", BigInt, nullable=False),
        sa.Column("key_hash", sa.String(64), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_throttles")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_throttles_key_hash")),
        sa.CheckConstraint("length(key_hash) = 64", name=op.f("ck_throttles_key_hash_length")),
    )
    op.create_index(op.f("ix_throttles_since"), "throttles", ["since"])


def downgrade() -> None:
    op.drop_table("throttles")
    op.drop_table("sessions")
