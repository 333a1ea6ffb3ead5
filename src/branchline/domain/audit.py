"""Audit events: the lines of the register."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from branchline.domain.chain import canonical, moment


class Kind(StrEnum):
    """What happened."""

    REGISTER_BEGUN = "register.begun"
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
    """How the actor proved who they are."""
    source: str = ""
    """The network address that the request came from."""


_NAMES_OF_KEYS = frozenset({"keys", "set", "hidden", "removed"})
"""What lines about config and deployments call their lists of keys."""

ENDS = (Kind.DEPLOYMENT_FINISHED, Kind.DEPLOYMENT_SUPERSEDED)
"""What is written at a deployment's end."""


@dataclass(frozen=True)
class Recorded:
    """A line as the register has it; `kind` may be one that only a newer version knows."""

    id: int
    at: datetime
    kind: str
    actor: str
    project: str | None
    environment: str | None
    deployment: int | None
    detail: dict[str, Any]
    proof: str
    source: str

    @property
    def body(self) -> str:
        """The text that is hashed."""
        return canonical({**vars(self), "at": moment(self.at)})

    @property
    def for_those_without_keys(self) -> Recorded:
        """The same for whoever may not know which keys the config has: they are counted instead of named."""
        detail = {
            name: len(told) if name in _NAMES_OF_KEYS and isinstance(told, list) else told
            for name, told in self.detail.items()
        }
        return replace(self, detail=detail)

    def holds(self, text: str) -> bool:
        """Whether any part of the line has it, whatever its case."""
        return text.casefold() in self.body.casefold()


@dataclass(frozen=True)
class Wanted:
    """Which lines somebody wants to see; `text` is looked for in all parts of a line, whatever its case.

    `projects` are those that may be seen at all, None for everything; `since` is included, `until` is not.
    """

    project: str | None = None
    environment: str | None = None
    actor: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    projects: Collection[str] | None = None


@dataclass(frozen=True)
class Lines:
    """Some lines, newest first. Where `next` is a number, there may be more with lower numbers."""

    items: Sequence[Recorded]
    next: int | None
