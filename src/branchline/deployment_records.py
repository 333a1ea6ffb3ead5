"""Deployments and their stages, as the platform remembers them: the queue, who carries what, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from branchline.domain.changes import Changes
from branchline.domain.deployment import Deployment, Failure, Fence, State, Trigger
from branchline.domain.environment import Environment, Tier
from branchline.domain.pipeline import Stage, StageState
from branchline.ports import Revision


@dataclass(frozen=True)
class StageRecord:
    """How far a stage came. `result` is what it left behind, None until it has ended.

    `attempts` says how often it began, `hung` that it once did not even heed its time limit.
    """

    name: Stage
    state: StageState
    started_at: datetime
    finished_at: datetime | None
    note: str
    attempts: int = 1
    hung: bool = False
    result: dict[str, Any] | None = None


class Deployments(Protocol):
    """Deployments: the truth about what was asked for and what came of it."""

    def add(
        self,
        environment: Environment,
        revision: Revision,
        *,
        actor: str,
        trigger: Trigger,
        reason: str,
        proof: str = "",
        source: str = "",
    ) -> Deployment:
        """Queue a deployment and wake the runners of its tier (when the transaction ends).

        `proof` and `source` say how the actor was known and where the request came from.
        """

    def supersede(self, newer: Deployment) -> list[int]:
        """End every older queued deployment of the same environment; return their numbers."""

    def get(self, deployment: int) -> Deployment: ...

    def page(
        self, projects: Collection[str] | None, environment: str | None, before: int | None, limit: int
    ) -> list[Deployment]:
        """Newest first; of these projects, or of all."""

    def ask_to_cancel(self, deployment: int, by: str) -> None:
        """Note the wish, and who was the first to have it; whoever runs the deployment sees it.

        Until the transaction ends nobody claims the deployment, and none of its stages begins.
        """

    def claim(self, tier: Tier, runner: str) -> Deployment | None:
        """Take the next queued deployment: none whose environment is busy, projects with fewer running ones first."""

    def take_over(self, deployment: int, runner: str, instead_of: str) -> Deployment | None:
        """From now on this runner carries the running deployment, in a new attempt that locks out those before.

        None where another one than `instead_of` carries it, or nobody any more: somebody was quicker.
        """

    def hold(self, fence: Fence) -> bool:
        """Keep the deployment's row until the transaction ends: nobody takes it over or cancels it meanwhile.

        Returns whether somebody has asked to cancel.
        Raises TakenOver where a later attempt carries it: nothing that belongs to this one may be written any more.
        """

    def carried_by(self, deployment: int) -> tuple[Fence, bool]:
        """Which attempt carries it, and whether somebody asked to cancel."""

    def running(self, tier: Tier) -> list[tuple[int, str]]:
        """Every running deployment of the tier, with its runner."""

    def under_way(self, environment: Environment) -> list[int]:
        """The ids of those that wait or run there, oldest first."""

    def at_work(self, tier: Tier) -> set[int]:
        """The ids of the tier's environments in which a deployment runs."""

    def begin_stage(self, deployment: int, stage: Stage) -> StageRecord:
        """Note the begin; a repeat keeps the first start and counts one attempt more."""

    def end_stage(
        self, deployment: int, stage: Stage, state: StageState, note: str, result: Mapping[str, Any] | None = None
    ) -> StageRecord | None:
        """Write down what came of it; `result` (plain JSON) is what a repeat gets instead of running again.

        None where it had ended before with a result, and nothing changes then.
        """

    def note_hung(self, deployment: int, stage: Stage) -> None:
        """Say that the stage does not end although its time is over."""

    def stages(self, deployment: int) -> list[StageRecord]:
        """In the order in which they began."""

    def note_replaces(self, deployment: int) -> int | None:
        """Save, once, what is live in its environment; a repeat returns what was saved."""

    def note_switched(self, deployment: int) -> bool:
        """Say, once, that traffic goes to it from now on; False where that was said before."""

    def note_undone(self, deployment: int) -> bool:
        """Say, once, that it has no traffic any more because it was undone; False where that was said before."""

    def replaced_by(self, deployment: Deployment) -> Deployment | None:
        """The one that traffic went to after it, and stayed with; None while there is none."""

    def note_changes(self, deployment: int, changes: Changes) -> None:
        """Keep, once, what differs from what was live."""

    def changes(self, deployment: int) -> Changes | None:
        """What differs from what was live; None while nobody has noted it."""

    def note_release(self, deployment: int, release: int) -> None: ...

    def note_config(self, deployment: int, versions: Mapping[str, int]) -> None:
        """Pin the versions of the config's layers, by path, once."""

    def finish(
        self, deployment: int, state: State, failed_stage: Stage | None = None, failure: Failure | None = None
    ) -> bool:
        """End it; False where it had ended before, and nothing changes then."""

    def count_by_state(self) -> dict[tuple[State, Tier], int]: ...
