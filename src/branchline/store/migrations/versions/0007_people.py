"""People: members, roles in each project, tokens that belong to somebody, are narrowed and expire.

A token of before is a machine's, with its role everywhere, as it was. No version that knew only those was released.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "member",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), server_default="", nullable=False),
        sa.Column("issuer", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("groups", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="member_pkey"),
        sa.UniqueConstraint("name", name="member_name_key"),
        sa.UniqueConstraint("issuer", "subject", name="member_issuer_subject_key"),
    )
    op.create_table(
        "role_grant",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("member_id", sa.BigInteger(), nullable=True),
        sa.Column("group_name", sa.Text(), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(member_id IS NULL) <> (group_name IS NULL)", name="role_grant_holder_check"),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name="role_grant_member_id_fkey"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="role_grant_project_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="role_grant_pkey"),
        sa.UniqueConstraint(
            "member_id",
            "group_name",
            "project_id",
            name="role_grant_member_id_group_name_project_id_key",
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.add_column("token", sa.Column("member_id", sa.BigInteger(), nullable=True))
    op.add_column("token", sa.Column("projects", postgresql.JSONB(), nullable=True))
    op.add_column("token", sa.Column("permissions", postgresql.JSONB(), nullable=True))
    op.add_column("token", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.alter_column("token", "role", nullable=True)
    op.create_foreign_key("token_member_id_fkey", "token", "member", ["member_id"], ["id"])
    op.drop_constraint("token_name_key", "token")
    op.create_unique_constraint(
        "token_member_id_name_key", "token", ["member_id", "name"], postgresql_nulls_not_distinct=True
    )
    for table in ("audit_event", "config_change"):
        op.add_column(table, sa.Column("proof", sa.Text(), server_default="", nullable=False))
        op.add_column(table, sa.Column("source", sa.Text(), server_default="", nullable=False))
