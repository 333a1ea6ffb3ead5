"""Layers: what an environment inherits, what a deployment was given of each layer, who changed which.

No version that knew the column which goes was ever released.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("environment", sa.Column("inherits", sa.Text(), server_default="develop", nullable=False))
    op.execute("UPDATE environment SET inherits = 'nothing' WHERE tier = 'production'")
    op.execute("UPDATE environment SET inherits = 'common' WHERE name IN ('develop', 'staging')")
    op.add_column("deployment", sa.Column("config", postgresql.JSONB(), nullable=True))
    op.execute(
        "UPDATE deployment SET config = jsonb_build_object(project.name || '/env/' || environment.name, config_version)"
        " FROM environment JOIN project ON project.id = environment.project_id"
        " WHERE environment.id = deployment.environment_id AND config_version IS NOT NULL"
    )
    op.execute(
        "UPDATE stage SET result = jsonb_set(result, '{output,config}', deployment.config) FROM deployment"
        " WHERE deployment.id = stage.deployment_id AND stage.name = 'prepare' AND result->'output' IS NOT NULL"
        " AND deployment.config IS NOT NULL"
    )
    op.drop_column("deployment", "config_version")
    op.create_table(
        "config_change",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("layer", sa.Text(), nullable=False),
        sa.Column("base", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("keys", postgresql.JSONB(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="config_change_project_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="config_change_pkey"),
        sa.UniqueConstraint("project_id", "layer", "version", name="config_change_project_id_layer_version_key"),
    )
