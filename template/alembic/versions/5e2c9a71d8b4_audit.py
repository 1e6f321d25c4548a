"""auth: the audit trail

Revision ID: 5e2c9a71d8b4
Revises: b5d20e9f4a37
Create Date: 2026-11-26 10:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "5e2c9a71d8b4"
down_revision = "b5d20e9f4a37"
branch_labels = None
depends_on = None

BigInt = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", BigInt, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("actor_id", BigInt, nullable=True),
        sa.Column("actor_name", sa.String(64), nullable=False),
        sa.Column("session_id", BigInt, nullable=True),
        sa.Column("api_key_id", BigInt, nullable=True),
        sa.Column("command", sa.String(64), nullable=True),
        sa.Column("target_type", sa.String(64), nullable=False),
        sa.Column("target_id", BigInt, nullable=False),
        sa.Column("target_name", sa.String(255), nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.Column("address", sa.String(64), nullable=True),
        sa.Column("request_id", sa.String(128), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
        sa.CheckConstraint("length(action) <= 64", name=op.f("ck_audit_events_action_length")),
        sa.CheckConstraint(
            "length(actor_name) <= 64", name=op.f("ck_audit_events_actor_name_length")
        ),
        sa.CheckConstraint("length(command) <= 64", name=op.f("ck_audit_events_command_length")),
        sa.CheckConstraint(
            "length(target_type) <= 64", name=op.f("ck_audit_events_target_type_length")
        ),
        sa.CheckConstraint(
            "length(target_name) <= 255", name=op.f("ck_audit_events_target_name_length")
        ),
        sa.CheckConstraint("length(address) <= 64", name=op.f("ck_audit_events_address_length")),
        sa.CheckConstraint(
            "length(request_id) <= 128", name=op.f("ck_audit_events_request_id_length")
        ),
        sqlite_autoincrement=True,
    )
    for columns in (
        ["created_at", "id"],
        ["actor_id", "created_at", "id"],
        ["target_type", "target_id", "created_at", "id"],
    ):
        name = op.f(f"ix_audit_events_{'_'.join(columns)}")
        op.create_index(name, "audit_events", columns)


def downgrade() -> None:
    op.drop_table("audit_events")
