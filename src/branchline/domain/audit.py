"""Audit events: the lines of the register."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What happened."""

    PLATFORM_STARTED = "platform.started"
    PROJECT_ADDED = "project.added"
    CONFIG_CHANGED = "config.changed"
    CONFIG_READ = "config.read"
    ACCESS_REFUSED = "access.refused"
    LOGIN_SUCCEEDED = "login.succeeded"
    LOGIN_FAILED = "login.failed"
    LOGIN_ENDED = "login.ended"
    MEMBER_CHANGED = "member.changed"
    MEMBER_REMOVED = "member.removed"
    TOKEN_CREATED = "token.created"  # noqa: S105 a kind of event
    TOKEN_REVOKED = "token.revoked"  # noqa: S105
    DEPLOYMENT_REQUESTED = "deployment.requested"
    DEPLOYMENT_STARTED = "deployment.started"
    DEPLOYMENT_TAKEN_OVER = "deployment.taken_over"
    DEPLOYMENT_SUPERSEDED = "deployment.superseded"
    DEPLOYMENT_CANCEL_ASKED = "deployment.cancel_asked"
    DEPLOYMENT_SWITCHED = "deployment.switched"
    DEPLOYMENT_UNDONE = "deployment.undone"
    DEPLOYMENT_FINISHED = "deployment.finished"
    STAGE_ENDED = "stage.ended"
    ENVIRONMENT_MENDED = "environment.mended"
    ENVIRONMENT_TROUBLED = "environment.troubled"


@dataclass(frozen=True)
class AuditEvent:
    """Who did what to what, and what came of it. `detail` is plain JSON and never holds a config value.

    `proof` says how the actor was known, `source` the network address they came from.
    """

    kind: Kind
    actor: str
    project: str | None = None
    environment: str | None = None
    deployment: int | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    proof: str = ""
    source: str = ""
