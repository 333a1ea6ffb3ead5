"""The platform's own tables. A change here needs a migration beside it: a test compares the two."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

_MOMENT = sa.DateTime(timezone=True)


def _now() -> sa.Column[datetime]:
    return sa.Column("created_at", _MOMENT, nullable=False, server_default=sa.func.now())


project = sa.Table(
    "project",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("repository", sa.Text, nullable=False),
    _now(),
)

environment = sa.Table(
    "environment",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("project_id", sa.BigInteger, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("tier", sa.Text, nullable=False),
    # Its number on this platform: the subnet derives from it, so two environments never share one.
    sa.Column("slot", sa.Integer, nullable=False, unique=True),
    # No foreign key: deployment points here, and a circle would forbid both to be written plainly.
    sa.Column("live_deployment_id", sa.BigInteger),
    sa.Column("trouble", sa.Text, nullable=False, server_default=""),
    sa.Column("inherits", sa.Text, nullable=False, server_default="develop"),
    _now(),
    sa.UniqueConstraint("project_id", "name"),
)

hostname = sa.Table(
    "hostname",
    metadata,
    sa.Column("hostname", sa.Text, primary_key=True),
    sa.Column("environment_id", sa.BigInteger, sa.ForeignKey("environment.id"), nullable=False, index=True),
)

release = sa.Table(
    "release",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("project_id", sa.BigInteger, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("build_key", sa.Text, nullable=False),
    sa.Column("image", sa.Text, nullable=False),
    sa.Column("manifest", JSONB, nullable=False),
    # Since then it is known, but must be built again before it can run.
    sa.Column("image_removed_at", _MOMENT),
    _now(),
    sa.UniqueConstraint("project_id", "number"),
    sa.UniqueConstraint("project_id", "build_key"),
)

deployment = sa.Table(
    "deployment",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("environment_id", sa.BigInteger, sa.ForeignKey("environment.id"), nullable=False),
    sa.Column("ref", sa.Text, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False, server_default=""),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    # How the actor was known, and from which address the request came.
    sa.Column("proof", sa.Text, nullable=False, server_default=""),
    sa.Column("source", sa.Text, nullable=False, server_default=""),
    sa.Column("trigger", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("requested_at", _MOMENT, nullable=False, server_default=sa.func.clock_timestamp()),
    sa.Column("started_at", _MOMENT),
    sa.Column("finished_at", _MOMENT),
    sa.Column("release_id", sa.BigInteger, sa.ForeignKey("release.id")),
    sa.Column("replaces", sa.BigInteger),
    sa.Column("replaces_noted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("superseded_by", sa.BigInteger),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("cancelled_by", sa.Text),
    # When traffic was sent to it, and when it was taken back: each is noted once, with its line in the register.
    sa.Column("switched_at", _MOMENT),
    sa.Column("undone_at", _MOMENT),
    # What differs from what was live, noted once; read with the whole story alone.
    sa.Column("changes", JSONB(none_as_null=True)),
    # The version of each layer that it was given, by path; 0 where a layer was not there.
    sa.Column("config", JSONB(none_as_null=True)),
    sa.Column("failed_stage", sa.Text),
    sa.Column("failure", JSONB),
    # The runner that carries it.
    sa.Column("runner", sa.Text),
    # Counts who carried it. Whoever acts for an earlier attempt than this is locked out.
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Index("deployment_newest_idx", "environment_id", sa.text("id DESC")),
    sa.Index("deployment_open_idx", "state", postgresql_where=sa.text("state IN ('queued', 'running')")),
    # At most one deployment of an environment runs, whatever the runners believe.
    sa.Index("deployment_one_runs_idx", "environment_id", unique=True, postgresql_where=sa.text("state = 'running'")),
)

stage = sa.Table(
    "stage",
    metadata,
    sa.Column("deployment_id", sa.BigInteger, sa.ForeignKey("deployment.id"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("started_at", _MOMENT, nullable=False, server_default=sa.func.clock_timestamp()),
    sa.Column("finished_at", _MOMENT),
    sa.Column("note", sa.Text, nullable=False, server_default=""),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="1"),
    sa.Column("hung", sa.Boolean, nullable=False, server_default=sa.false()),
    # What it left behind, once it has ended: it never runs again then.
    sa.Column("result", JSONB(none_as_null=True)),
)

config_change = sa.Table(
    "config_change",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("project_id", sa.BigInteger, sa.ForeignKey("project.id"), nullable=False),
    sa.Column("layer", sa.Text, nullable=False),
    # Written down before the store is asked, with the version that it is made to; `version` says what came of it.
    sa.Column("base", sa.Integer, nullable=False),
    sa.Column("version", sa.Integer),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("keys", JSONB, nullable=False),
    sa.Column("at", _MOMENT, nullable=False, server_default=sa.func.clock_timestamp()),
    sa.Column("proof", sa.Text, nullable=False, server_default=""),
    sa.Column("source", sa.Text, nullable=False, server_default=""),
    sa.UniqueConstraint("project_id", "layer", "version"),
    sa.Index("config_change_open_idx", "id", postgresql_where=sa.text("version IS NULL")),
)

log_line = sa.Table(
    "log_line",
    metadata,
    sa.Column("deployment_id", sa.BigInteger, primary_key=True),
    sa.Column("seq", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("at", _MOMENT, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)

# The register: whose these are, and what the platform may do there, says `register_schema`.
event = sa.Table(
    "event",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", _MOMENT, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("proof", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("project", sa.Text),
    sa.Column("environment", sa.Text),
    sa.Column("deployment", sa.BigInteger),
    sa.Column("detail", JSONB, nullable=False),
    # The columns above once more, as the text that is hashed after the hash of the row before.
    sa.Column("previous", sa.LargeBinary, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Index("event_at_idx", "at"),
    sa.Index("event_project_idx", "project", "seq"),
    sa.Index("event_environment_idx", "environment", "seq"),
    sa.Index("event_actor_idx", "actor", "seq"),
    sa.Index("event_kind_idx", "kind", "seq"),
    schema="register",
)

# What a transaction adds; at its end a trigger makes rows of the register of it.
incoming = sa.Table(
    "incoming",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("proof", sa.Text, nullable=False, server_default=""),
    sa.Column("source", sa.Text, nullable=False, server_default=""),
    sa.Column("project", sa.Text),
    sa.Column("environment", sa.Text),
    sa.Column("deployment", sa.BigInteger),
    sa.Column("detail", JSONB, nullable=False),
    schema="register",
)

seal = sa.Table(
    "seal",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("at", _MOMENT, nullable=False),
    sa.Column("key_version", sa.Integer, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Index("seal_seq_idx", "seq"),
    schema="register",
)

member = sa.Table(
    "member",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("email", sa.Text, nullable=False, server_default=""),
    # Who vouches for them, and what they are called there; none until their first login.
    sa.Column("issuer", sa.Text),
    sa.Column("subject", sa.Text),
    sa.Column("groups", JSONB, nullable=False, server_default="[]"),
    _now(),
    sa.Column("last_login_at", _MOMENT),
    sa.Column("disabled_at", _MOMENT),
    sa.UniqueConstraint("issuer", "subject"),
)

role_grant = sa.Table(
    "role_grant",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("member_id", sa.BigInteger, sa.ForeignKey("member.id")),
    sa.Column("group_name", sa.Text),
    # None: everywhere
    sa.Column("project_id", sa.BigInteger, sa.ForeignKey("project.id")),
    sa.Column("role", sa.Text, nullable=False),
    _now(),
    sa.CheckConstraint("(member_id IS NULL) <> (group_name IS NULL)", name="role_grant_holder_check"),
    sa.UniqueConstraint("member_id", "group_name", "project_id", postgresql_nulls_not_distinct=True),
)

token = sa.Table(
    "token",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    # None: a machine's, which has a role of its own
    sa.Column("member_id", sa.BigInteger, sa.ForeignKey("member.id")),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("role", sa.Text),
    # What narrows it, as lists; None: nothing
    sa.Column("projects", JSONB(none_as_null=True)),
    sa.Column("permissions", JSONB(none_as_null=True)),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    _now(),
    sa.Column("expires_at", _MOMENT),
    sa.Column("last_used_at", _MOMENT),
    sa.UniqueConstraint("member_id", "name", postgresql_nulls_not_distinct=True),
)
