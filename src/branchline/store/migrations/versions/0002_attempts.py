"""Attempts: who may act for a deployment, how often a stage began, and what it left behind."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("deployment", sa.Column("attempt", sa.Integer(), server_default="0", nullable=False))
    op.add_column("stage", sa.Column("attempts", sa.Integer(), server_default="1", nullable=False))
    op.add_column("stage", sa.Column("hung", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("stage", sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    # What an engine of somebody else's remembered of each stage now stands in `stage.result`.
    for tier in ("nonprod", "production"):
        op.execute(f"DROP SCHEMA IF EXISTS dbos_{tier} CASCADE")
