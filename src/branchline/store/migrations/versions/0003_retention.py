"""Retention: a release outlives its image."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("release", sa.Column("image_removed_at", sa.DateTime(timezone=True), nullable=True))
