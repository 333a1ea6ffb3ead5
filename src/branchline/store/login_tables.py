"""The tables of logins, beside the others in `tables`."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from branchline.store.tables import metadata

_MOMENT = sa.DateTime(timezone=True)


def _now(name: str) -> sa.Column[datetime]:
    return sa.Column(name, _MOMENT, nullable=False, server_default=sa.func.now())


session = sa.Table(
    "session",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("owner", sa.Text, nullable=False, index=True),
    sa.Column("proof", sa.Text, nullable=False),
    sa.Column("member_id", sa.BigInteger, sa.ForeignKey("member.id", ondelete="CASCADE")),
    # No foreign key: a token that is gone ends the session by not being found.
    sa.Column("token_digest", sa.Text),
    _now("created_at"),
    sa.Column("expires_at", _MOMENT, nullable=False, index=True),
    _now("last_seen_at"),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("agent", sa.Text, nullable=False),
)

pending_login = sa.Table(
    "pending_login",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("then", sa.Text, nullable=False),
    sa.Column("expires_at", _MOMENT, nullable=False, index=True),
)

device_login = sa.Table(
    "device_login",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("device_digest", sa.Text, nullable=False, unique=True),
    sa.Column("user_digest", sa.Text, nullable=False, unique=True),
    sa.Column("client", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    _now("created_at"),
    sa.Column("expires_at", _MOMENT, nullable=False, index=True),
    sa.Column("polled_at", _MOMENT),
    # What it has to wait between two questions, beyond what all have to.
    sa.Column("slowed_by", sa.Integer, nullable=False, server_default="0"),
    sa.Column("state", sa.Text, nullable=False, server_default="asked"),
    sa.Column("decided_by", sa.Text, nullable=False, server_default=""),
    # Who it acts for from then on, and what it may: a member or a role, a scope, until when.
    sa.Column("grant", JSONB, nullable=False, server_default="{}"),
)
