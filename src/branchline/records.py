"""What operations need from the platform's own memory: projects, environments, releases, deployments, the register.

Everything happens inside a transaction, so that a change and its line in the register are written together or not at
all. Where nothing else is said, naming something that does not exist raises NotFound.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from branchline.config_records import ConfigChanges
from branchline.deployment_records import Deployments
from branchline.domain.audit import AuditEvent, Lines, Wanted
from branchline.domain.chain import Head, Link, Seal
from branchline.domain.environment import Destination, Environment, Tier
from branchline.domain.manifest import Manifest
from branchline.domain.project import Project
from branchline.domain.release import Release
from branchline.domain.retention import Use
from branchline.login_records import DeviceLogins, PendingLogins, Sessions
from branchline.people_records import Members, Tokens

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

    def some(self, environments: Collection[int]) -> dict[int, tuple[Environment, str | None]]:
        """These, by id, each with its first hostname."""

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

    def built(self, releases: Collection[int]) -> dict[int, tuple[int, str]]:
        """The numbers and images of these, by id."""

    def uses(self) -> list[Use]:
        """Who uses the releases that have an image, in all environments of both tiers."""

    def hold(self, releases: Collection[int]) -> None:
        """Wait until nobody is about to use these releases; until the transaction ends, nobody finds them."""

    def note_removed(self, releases: Collection[int]) -> None:
        """Say that their images are no longer kept."""

    def images(self) -> set[str]:
        """The images that are kept, as references by digest."""


class Register(Protocol):
    """The audit trail. It only grows: nothing that is in it can be changed or taken out by us."""

    def add(self, event: AuditEvent) -> None:
        """Write a line, which is in the register once the transaction has ended; its number and time are made there."""

    def page(self, wanted: Wanted, before: int | None, limit: int) -> Lines:
        """Lines with lower numbers than `before`, newest first.

        There may be fewer than `limit` although `next` says that there are more: what no index leads to is looked for
        in so many rows at a time.
        """

    def head(self) -> Head | None:
        """The newest row; None where there is none yet."""

    def links(self, after: int, upto: int, limit: int) -> list[Link]:
        """The rows after a number and up to another, in their order, as they are chained."""

    def seal(self, seal: Seal) -> None:
        """Keep a seal."""

    def seals(self, after: int, upto: int) -> list[Seal]:
        """Those of the rows after a number and up to another, in their order."""

    def newest_seal(self) -> Seal | None:
        """That of the highest row."""

    def ended_since(self, after: int) -> bool:
        """Whether a deployment has ended in the rows after a number."""


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
    @property
    def sessions(self) -> Sessions: ...
    @property
    def pending_logins(self) -> PendingLogins: ...
    @property
    def device_logins(self) -> DeviceLogins: ...


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
