"""Changes: what a deployment changed, who asked from where, who cancelled it, and when traffic came and went."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    for column in ("proof", "source"):
        op.add_column("deployment", sa.Column(column, sa.Text, nullable=False, server_default=""))
    op.add_column("deployment", sa.Column("cancelled_by", sa.Text))
    for column in ("switched_at", "undone_at"):
        op.add_column("deployment", sa.Column(column, sa.DateTime(timezone=True)))
    op.add_column("deployment", sa.Column("changes", JSONB))
    # What is known of those before: the stages say when traffic was switched, and when it was put back.
    op.execute(
        "UPDATE deployment SET switched_at = stage.finished_at FROM stage"
        " WHERE stage.deployment_id = deployment.id AND stage.name = 'switch' AND stage.state = 'passed'"
    )
    op.execute(
        "UPDATE deployment SET undone_at = stage.finished_at FROM stage"
        " WHERE stage.deployment_id = deployment.id AND stage.name = 'undo' AND deployment.state = 'undone'"
    )
