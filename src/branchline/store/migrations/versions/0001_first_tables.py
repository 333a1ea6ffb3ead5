"""The first tables: projects, environments, releases, deployments, logs, the register, tokens."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "audit_event",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=True),
        sa.Column("environment", sa.Text(), nullable=True),
        sa.Column("deployment", sa.BigInteger(), nullable=True),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_event_pkey")),
    )
    op.create_index("audit_event_project_idx", "audit_event", ["project", sa.literal_column("id DESC")], unique=False)
    op.create_table(
        "log_line",
        sa.Column("deployment_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("deployment_id", "seq", name=op.f("log_line_pkey")),
    )
    op.create_table(
        "project",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("project_pkey")),
        sa.UniqueConstraint("name", name=op.f("project_name_key")),
    )
    op.create_table(
        "token",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("token_pkey")),
        sa.UniqueConstraint("digest", name=op.f("token_digest_key")),
        sa.UniqueConstraint("name", name=op.f("token_name_key")),
    )
    op.create_table(
        "environment",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("live_deployment_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("environment_project_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("environment_pkey")),
        sa.UniqueConstraint("project_id", "name", name=op.f("environment_project_id_name_key")),
        sa.UniqueConstraint("slot", name=op.f("environment_slot_key")),
    )
    op.create_table(
        "release",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("commit", sa.Text(), nullable=False),
        sa.Column("build_key", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("manifest", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("release_project_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("release_pkey")),
        sa.UniqueConstraint("project_id", "build_key", name=op.f("release_project_id_build_key_key")),
        sa.UniqueConstraint("project_id", "number", name=op.f("release_project_id_number_key")),
    )
    op.create_table(
        "deployment",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("environment_id", sa.BigInteger(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("commit", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), server_default="", nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("release_id", sa.BigInteger(), nullable=True),
        sa.Column("replaces", sa.BigInteger(), nullable=True),
        sa.Column("replaces_noted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("superseded_by", sa.BigInteger(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("config_version", sa.Integer(), nullable=True),
        sa.Column("failed_stage", sa.Text(), nullable=True),
        sa.Column("failure", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("runner", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["environment_id"], ["environment.id"], name=op.f("deployment_environment_id_fkey")),
        sa.ForeignKeyConstraint(["release_id"], ["release.id"], name=op.f("deployment_release_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("deployment_pkey")),
    )
    op.create_index(
        "deployment_newest_idx", "deployment", ["environment_id", sa.literal_column("id DESC")], unique=False
    )
    op.create_index(
        "deployment_one_runs_idx",
        "deployment",
        ["environment_id"],
        unique=True,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "deployment_open_idx",
        "deployment",
        ["state"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_table(
        "hostname",
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("environment_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["environment_id"], ["environment.id"], name=op.f("hostname_environment_id_fkey")),
        sa.PrimaryKeyConstraint("hostname", name=op.f("hostname_pkey")),
    )
    op.create_index(op.f("hostname_environment_id_idx"), "hostname", ["environment_id"], unique=False)
    op.create_table(
        "stage",
        sa.Column("deployment_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["deployment_id"], ["deployment.id"], name=op.f("stage_deployment_id_fkey")),
        sa.PrimaryKeyConstraint("deployment_id", "name", name=op.f("stage_pkey")),
    )


def downgrade() -> None:
    op.drop_table("stage")
    op.drop_index(op.f("hostname_environment_id_idx"), table_name="hostname")
    op.drop_table("hostname")
    op.drop_index(
        "deployment_open_idx", table_name="deployment", postgresql_where=sa.text("state IN ('queued', 'running')")
    )
    op.drop_index("deployment_one_runs_idx", table_name="deployment", postgresql_where=sa.text("state = 'running'"))
    op.drop_index("deployment_newest_idx", table_name="deployment")
    op.drop_table("deployment")
    op.drop_table("release")
    op.drop_table("environment")
    op.drop_table("token")
    op.drop_table("project")
    op.drop_table("log_line")
    op.drop_index("audit_event_project_idx", table_name="audit_event")
    op.drop_table("audit_event")
