"""What every stage is given: whom it deploys, where to, what came before, where to write and when to stop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from branchline.domain.deployment import Deployment, Fence
from branchline.domain.environment import Environment
from branchline.domain.errors import Cancelled, DeploymentFailed, PlatformBroke, TakenOver
from branchline.domain.manifest import AdjustableStage, Manifest
from branchline.domain.pipeline import Stage
from branchline.domain.project import Project
from branchline.ports import Interrupt, Log
from branchline.records import Records, Store

_LOOK_EVERY = 0.25

TIMED_OUT = "stage_timed_out"

_ADJUSTABLE = frozenset(get_args(AdjustableStage))
_SLOW_HOST = "The git host is slow, or the history large: what was fetched is lost, so see how long a clone takes."


@dataclass(frozen=True)
class Scene:
    """One stage's view of its deployment. `outputs` holds what the stages before it left behind."""

    store: Store
    deployment: Deployment
    project: Project
    environment: Environment
    log: Log
    stop: Interrupt
    outputs: Mapping[Stage, Mapping[str, Any]]

    @contextmanager
    def record(self) -> Iterator[Records]:
        """A transaction in which the stage writes down what it did; raises TakenOver where it may not any more."""
        with self.store.transaction() as records:
            records.deployments.hold(self.deployment.fence)
            yield records

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of the commit, as `checkout` found it."""
        return Manifest.model_validate(self.outputs[Stage.CHECKOUT]["manifest"])

    @property
    def built_before(self) -> str:
        """Which release makes building needless; empty where there is none."""
        return str(self.outputs[Stage.CHECKOUT].get("built_before", ""))

    @property
    def image(self) -> str:
        """The name that the release's containers start from, as `prepare` found it."""
        return str(self.outputs[Stage.PREPARE]["image"])

    @property
    def release(self) -> str:
        """The release's number, as `prepare` found it."""
        return str(self.outputs[Stage.PREPARE]["release"])

    @property
    def config(self) -> dict[str, int]:
        """The version of each layer of the config that `prepare` pinned; 0 where a layer was not there."""
        return dict(self.outputs[Stage.PREPARE]["config"])

    @property
    def hostnames(self) -> list[str]:
        """Where the environment answers, as `prepare` found it."""
        return list(self.outputs[Stage.PREPARE]["hostnames"])


def cancelled(by: str | None = None) -> Cancelled:
    """What a stage ends with where somebody asked to cancel."""
    return Cancelled(f"{by or 'Somebody'} cancelled the deployment.", hint="What was live before stays live.")


class StageInterrupt:
    """Port `Interrupt` for one stage: its time limit, somebody's wish to cancel, another runner's take-over."""

    def __init__(
        self, store: Store, fence: Fence, stage: Stage, limit: float, *, cancellable: bool, looked_at: float
    ) -> None:
        """`looked_at` says when somebody looked last, by the monotonic clock."""
        self._store = store
        self._fence = fence
        self._stage = stage
        self._limit = limit
        self._cancellable = cancellable
        self._ends = time.monotonic() + limit
        self._next_look = looked_at + _LOOK_EVERY

    def check(self) -> None:
        """Raise Cancelled, DeploymentFailed (`stage_timed_out`) or TakenOver when it is time to stop."""
        now = time.monotonic()
        late = now > self._ends
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY
            self._look()
        if late:
            sentence = f"The stage {self._stage} did not end within its {self._limit:g} s."
            raise DeploymentFailed(sentence, code=TIMED_OUT, hint=_limit_of(self._stage))

    def _look(self) -> None:
        """Look who carries the deployment: first of all, since a process that was paused comes late to everything."""
        try:
            with self._store.transaction() as records:
                carrying, cancel = records.deployments.carried_by(self._fence.deployment)
        except PlatformBroke:
            return  # the database is away for a moment; the time limit still counts
        if carrying != self._fence:
            raise TakenOver(f"Another runner carries deployment {self._fence.deployment} now.")
        if cancel and self._cancellable:
            raise cancelled()

    def wait(self, seconds: float) -> None:
        """Sleep, but wake up and raise as `check` does."""
        until = time.monotonic() + seconds
        while True:
            self.check()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _LOOK_EVERY))


def _limit_of(stage: Stage) -> str:
    if stage in _ADJUSTABLE:
        return f"The limit is `timeouts.{stage}` in the manifest."
    return _SLOW_HOST if stage is Stage.CHECKOUT else "The limit is the platform's own."
