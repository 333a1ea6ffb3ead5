"""What operations need from the platform's own memory: projects, environments, releases, deployments, the register.

Everything happens inside a transaction, so that a change and its line in the register are written together or not at
all. Where nothing else is said, naming something that does not exist raises NotFound.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from branchline.config_records import ConfigChanges
from branchline.domain.audit import AuditEvent
from branchline.domain.deployment import Deployment, Failure, Fence, State, Trigger
from branchline.domain.environment import Destination, Environment, Tier
from branchline.domain.manifest import Manifest
from branchline.domain.pipeline import Stage, StageState
from branchline.domain.project import Project
from branchline.domain.release import Release
from branchline.domain.retention import Use
from branchline.people_records import Members, Tokens
from branchline.ports import Revision

STORE_AWAY = "store_unreachable"
STORE_FULL = "store_full"
"""Codes of PlatformBroke where the platform's own database cannot be used: then nothing can be written down."""


class Projects(Protocol):
    """The projects that the platform knows."""

    def add(self, name: str, repository: str) -> Project:
        """Raises Conflict (`project_exists`)."""

    def get(self, name: str) -> Project: ...

    def all(self) -> list[Project]: ...


class Environments(Protocol):
    """The environments of projects."""

    def ensure(self, project: Project, destination: Destination) -> Environment:
        """The environment, made where it is new, with the lowest free slot (from 1); it inherits as is said now."""

    def get(self, project: str, name: str) -> Environment: ...

    def lock(self, environment: Environment) -> None:
        """Until the transaction ends nobody asks for a deployment there, and nothing else becomes live."""

    def of(self, project: str) -> list[Environment]: ...

    def of_tier(self, tier: Tier) -> list[Environment]:
        """Those of all projects, by project and name."""

    def claim_hostnames(self, environment: Environment, hostnames: Sequence[str]) -> None:
        """Give these hostnames, and no others, to the environment; raises Conflict (`hostname_taken`)."""

    def hostnames(self, environment: Environment) -> list[str]: ...

    def owners(self, hostnames: Sequence[str]) -> dict[str, int]:
        """The ids of the environments that have these hostnames; one that nobody has is left out."""

    def set_live(self, environment: Environment, deployment: int | None) -> None:
        """Note what the environment's traffic goes to; its trouble ends with that."""

    def note_trouble(self, environment: Environment, trouble: str) -> None: ...


class Releases(Protocol):
    """What was built."""

    def find(self, project: Project, build_key: str) -> Release | None:
        """The release that was built from exactly these inputs and still has its image.

        Until the transaction ends it cannot lose that.
        """

    def add(self, project: Project, commit: str, build_key: str, image: str, manifest: Manifest) -> Release:
        """Record a release; where one of this key exists, that one is returned, with this image if it has lost its."""

    def get(self, release: int) -> Release: ...

    def uses(self) -> list[Use]:
        """Who uses the releases that have an image, in all environments of both tiers."""

    def hold(self, releases: Collection[int]) -> None:
        """Wait until nobody is about to use these releases; until the transaction ends, nobody finds them."""

    def note_removed(self, releases: Collection[int]) -> None:
        """Say that their images are no longer kept."""

    def images(self) -> set[str]:
        """The images that are kept, as references by digest."""


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
        self, environment: Environment, revision: Revision, *, actor: str, trigger: Trigger, reason: str
    ) -> Deployment:
        """Queue a deployment and wake the runners of its tier (when the transaction ends)."""

    def supersede(self, newer: Deployment) -> list[int]:
        """End every older queued deployment of the same environment; return their numbers."""

    def get(self, deployment: int) -> Deployment: ...

    def page(
        self, projects: Collection[str] | None, environment: str | None, before: int | None, limit: int
    ) -> list[Deployment]:
        """Newest first; of these projects, or of all."""

    def ask_to_cancel(self, deployment: int) -> None:
        """Note the wish; whoever runs the deployment sees it.

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
    ) -> None:
        """Write down what came of it; `result` (plain JSON) is what a repeat gets instead of running again."""

    def note_hung(self, deployment: int, stage: Stage) -> None:
        """Say that the stage does not end although its time is over."""

    def stages(self, deployment: int) -> list[StageRecord]:
        """In the order in which they began."""

    def note_replaces(self, deployment: int) -> int | None:
        """Save, once, what is live in its environment; a repeat returns what was saved."""

    def note_release(self, deployment: int, release: int) -> None: ...

    def note_config(self, deployment: int, versions: Mapping[str, int]) -> None:
        """Pin the versions of the config's layers, by path, once."""

    def finish(
        self, deployment: int, state: State, failed_stage: Stage | None = None, failure: Failure | None = None
    ) -> bool:
        """End it; False where it had ended before, and nothing changes then."""

    def count_by_state(self) -> dict[tuple[State, Tier], int]: ...


class Register(Protocol):
    """The audit trail."""

    def add(self, event: AuditEvent) -> None: ...

    def page(
        self, projects: Collection[str] | None, before: int | None, limit: int
    ) -> list[tuple[int, datetime, AuditEvent]]:
        """Newest first; of these projects, or of all and of the platform itself."""


class Records(Protocol):
    """All of it, within one transaction."""

    @property
    def projects(self) -> Projects: ...
    @property
    def environments(self) -> Environments: ...
    @property
    def releases(self) -> Releases: ...
    @property
    def deployments(self) -> Deployments: ...
    @property
    def register(self) -> Register: ...
    @property
    def members(self) -> Members: ...
    @property
    def tokens(self) -> Tokens: ...
    @property
    def config(self) -> ConfigChanges: ...


@dataclass(frozen=True)
class Line:
    """A line of a deployment's log."""

    seq: int
    at: datetime
    stage: str
    text: str


GONE_STAGE = "housekeeping"
GONE_TEXT = "This log is no longer kept: see `keep_logs` and `keep_logs_days` in the settings."
"""What is left of a log that was pruned."""


class Store(Protocol):
    """The way in: transactions, and the logs, which are too many for them."""

    def transaction(self) -> AbstractContextManager[Records]:
        """Commit at the end of the block, roll back when it raises."""

    def alone(self, name: str, *, shared: bool = False, wait: float = 0.0) -> AbstractContextManager[bool]:
        """Whether nobody else, in any process, is in a block of this name; holds the name until the block ends.

        The name is free again at once when its holder dies. Those who say `shared` are alone together: they keep out
        only who does not. Waits for `wait` seconds at the most, and as long as somebody waits nobody else gets in.
        """

    def append_log(self, deployment: int, lines: Sequence[tuple[datetime, str, str]]) -> None:
        """Add lines: time, stage, text."""

    def read_log(self, deployment: int, after: int, limit: int) -> list[Line]:
        """The lines after a `seq`, oldest first."""

    def before_the_last(self, deployment: int, count: int) -> int:
        """The `seq` after which the last `count` lines of a log come: 0 where it has no more than these."""

    def last_lines(self, deployment: int, stage: str, count: int) -> list[str]:
        """The texts of a stage's last lines, oldest first."""

    def log_size(self, deployment: int) -> int:
        """Characters that the log holds."""

    def prune_logs(self, before: datetime, keep: int) -> int:
        """Remove the logs of deployments that ended before then, or have `keep` newer ones in their environment.

        Those of live and of open deployments stay. One line is left that says so. Returns how many lost their log.
        """

    def stage_seconds(self) -> dict[str, tuple[int, float]]:
        """For each stage name: how many ended, and their seconds in all."""

    def ping(self) -> dict[str, Any]:
        """Raise PlatformBroke unless the database answers."""
