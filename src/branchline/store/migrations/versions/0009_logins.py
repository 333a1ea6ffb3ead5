"""Logins: sessions of browsers, logins that are under way at a provider, devices that wait to be confirmed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0007"

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "session",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("proof", sa.Text, nullable=False),
        sa.Column("member_id", sa.BigInteger, nullable=True),
        sa.Column("token_digest", sa.Text),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("last_seen_at", _MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name="session_member_id_fkey", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="session_pkey"),
        sa.UniqueConstraint("digest", name="session_digest_key"),
    )
    op.create_index("session_owner_idx", "session", ["owner"])
    op.create_index("session_expires_at_idx", "session", ["expires_at"])
    op.create_table(
        "pending_login",
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("then", sa.Text, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pending_login_pkey"),
    )
    op.create_index("pending_login_expires_at_idx", "pending_login", ["expires_at"])
    op.create_table(
        "device_login",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("device_digest", sa.Text, nullable=False),
        sa.Column("user_digest", sa.Text, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("polled_at", _MOMENT),
        sa.Column("slowed_by", sa.Integer, nullable=False, server_default="0"),
        sa.Column("state", sa.Text, nullable=False, server_default="asked"),
        sa.Column("decided_by", sa.Text, nullable=False, server_default=""),
        sa.Column("grant", JSONB, nullable=False, server_default="{}"),
        sa.PrimaryKeyConstraint("id", name="device_login_pkey"),
        sa.UniqueConstraint("device_digest", name="device_login_device_digest_key"),
        sa.UniqueConstraint("user_digest", name="device_login_user_digest_key"),
    )
    op.create_index("device_login_expires_at_idx", "device_login", ["expires_at"])
