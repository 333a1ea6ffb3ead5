"""Deployments: one attempt each to put a commit into an environment, and the states it goes through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class State(StrEnum):
    """Where a deployment stands. All but `queued` and `running` are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # a stage said no: the project's own doing
    BROKEN = "broken"  # the platform or a server beneath it failed
    UNDONE = "undone"  # sick after the switch; what was live before is live again
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"

    @property
    def final(self) -> bool:
        """Whether nothing will happen to the deployment any more."""
        return self not in {State.QUEUED, State.RUNNING}


class Trigger(StrEnum):
    """What started a deployment."""

    CLI = "cli"
    API = "api"
    DASHBOARD = "dashboard"
    PUSH = "push"


@dataclass(frozen=True)
class Failure:
    """Why a deployment did not succeed: a stable code, one sentence, a hint."""

    code: str
    sentence: str
    hint: str = ""


@dataclass(frozen=True, order=True)
class Fence:
    """Who acts for an environment: a deployment, in one of its attempts.

    Of two, the greater one is the later: once it has acted, whatever the lesser one still tries is refused. (Monotonic
    fencing, as in M. Kleppmann, "How to do distributed locking", 2016.)
    """

    deployment: int
    attempt: int


@dataclass(frozen=True)
class Deployment:
    """One attempt, with who asked for it, what it is about and what came of it.

    `proof` and `source` say how the actor was known, and the network address that the request came from.

    `replaces` is what was live when this deployment was about to start its containers. It is saved once, so that a
    resumed run undoes to the same release, however often it is resumed.

    `switched_at` and `undone_at` say when traffic was sent to it, and taken back. `runner` carries it, or did last.
    """

    id: int
    project: str
    environment: str
    environment_id: int
    ref: str
    commit: str
    subject: str
    state: State
    actor: str
    trigger: Trigger
    reason: str
    requested_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    release: int | None = None
    replaces: int | None = None
    superseded_by: int | None = None
    cancel_requested: bool = False
    failed_stage: str | None = None
    config: Mapping[str, int] | None = None
    failure: Failure | None = None
    attempt: int = 0
    proof: str = ""
    source: str = ""
    runner: str | None = None
    cancelled_by: str | None = None
    switched_at: datetime | None = None
    undone_at: datetime | None = None

    @property
    def fence(self) -> Fence:
        """Whoever carries the deployment now acts under this."""
        return Fence(self.id, self.attempt)
