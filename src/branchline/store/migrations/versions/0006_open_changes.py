"""Open changes: those of config that nobody has written the end of are found without a look at all others."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_index(
        "config_change_open_idx", "config_change", ["id"], postgresql_where=sa.text("version IS NULL"), unique=False
    )
