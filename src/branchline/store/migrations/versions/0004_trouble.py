"""Trouble: what an environment lacks and could not be given back."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("environment", sa.Column("trouble", sa.Text(), server_default="", nullable=False))
