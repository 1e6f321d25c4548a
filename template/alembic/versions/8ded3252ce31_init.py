"""init

Revision ID: 8ded3252ce31
Revises:
Create Date: 2026-11-22 12:00:00+00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "8ded3252ce31"
down_revision = None
branch_labels = None
depends_on = None

BigInt = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "permissions",
        sa.Column("id", BigInt, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_permissions")),
        sa.UniqueConstraint("name", name=op.f("uq_permissions_name")),
        sa.CheckConstraint("length(name) <= 64", name=op.f("ck_permissions_name_length")),
        sa.CheckConstraint(
            "length(description) <= 255", name=op.f("ck_permissions_description_length")
        ),
    )
    op.create_table(
        "users",
        sa.Column("id", BigInt, nullable=False),
        sa.Column("username", sa.String(32), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("password", sa.String(255), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("username", name=op.f("uq_users_username")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
        sa.CheckConstraint("length(username) <= 32", name=op.f("ck_users_username_length")),
        sa.CheckConstraint("length(email) <= 254", name=op.f("ck_users_email_length")),
        sa.CheckConstraint("length(password) <= 255", name=op.f("ck_users_password_length")),
    )
    op.create_table(
        "user_permissions",
        sa.Column("user_id", BigInt, nullable=False),
        sa.Column("permission_id", BigInt, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "permission_id", name=op.f("pk_user_permissions")),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_user_permissions_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["permission_id"],
            ["permissions.id"],
            name=op.f("fk_user_permissions_permission_id_permissions"),
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        op.f("ix_user_permissions_permission_id"), "user_permissions", ["permission_id"]
    )


def downgrade() -> None:
    op.drop_table("user_permissions")
    op.drop_table("users")
    op.drop_table("permissions")
