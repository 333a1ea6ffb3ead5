"""Housekeeping: what nobody needs any more goes, by count and age; never what a rollback or an environment needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import NotFound, PlatformBroke
from branchline.domain.retention import unneeded
from branchline.operations.chores import Chore
from branchline.operations.pipeline import PUBLISHING, Pipeline
from branchline.ports import Containers, ImageArchive, Images
from branchline.records import Records, Store

_GRACE = 10.0
_WAIT = 5.0
_INSIST = 20.0
_PAUSE = 0.1
_AT_ONCE = 5


@dataclass(frozen=True)
class Rules:
    """How much is kept; `build_cache` in bytes, `every` in seconds between two rounds."""

    releases: int
    logs: int
    logs_for: timedelta
    build_cache: int
    every: float


class Housekeeping:
    """The chores of one tier's runner. Each may be killed at any line: the next round finds what is left.

    `archive` is the registry's store, None where the registry is somebody else's.
    """

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        containers: Containers,
        images: Images,
        archive: ImageArchive | None,
        *,
        tier: Tier,
        rules: Rules,
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._containers = containers
        self._images = images
        self._archive = archive
        self._tier = tier
        self._rules = rules
        self._reclaim_due = True  # whoever was at it before may have been killed between removing and reclaiming

    def chores(self) -> tuple[Chore, ...]:
        """What a runner should do again and again."""
        every = self._rules.every
        return (
            Chore("sweep", every, self.sweep),
            Chore("images", every, self.prune_images, at_once=False),
            Chore("cache", every, self.bound_cache, at_once=False),
            Chore("logs", every, self.prune_logs),
        )

    def sweep(self) -> None:
        """What ended deployments left lying: worktrees, tests' networks and databases, containers."""
        with self._store.transaction() as records:
            left = [records.deployments.get(one) for one in self._pipeline.untidied() if _over(records, one)]
            environments = records.environments.of_tier(self._tier)
        sweeps = [partial(self._pipeline.tidy, deployment) for deployment in left]
        sweeps += [partial(self._sweep_containers, environment) for environment in environments]
        fault: PlatformBroke | None = None
        for sweep in sweeps:
            try:
                sweep()
            except PlatformBroke as error:
                if error.passing:
                    raise
                fault = error  # what cannot be tidied keeps nothing else lying about
        if fault is not None:
            raise fault

    def _sweep_containers(self, environment: Environment) -> None:
        found = self._containers.deployments(environment)
        # Decided after looking, or what is new by then might be taken for old. What has ended and is not live while
        # nothing runs never becomes live again: the next one to run goes back to what is live now.
        with self._store.transaction() as records:
            place = records.environments.get(environment.project, environment.name)
            if place.id in records.deployments.at_work(self._tier):
                return
            stale = [one for one in sorted(found - {place.live_deployment}) if _over(records, one)]
        for number in stale:
            self._containers.stop(environment, number, _GRACE)

    def prune_images(self) -> None:
        """Images that neither a rollback nor an environment needs: here, and in the registry."""
        self._retire()
        tried: set[str] = set()
        while self._prune_some(tried):
            time.sleep(_PAUSE)  # longer than those who publish wait before they try again: they come first
        if self._archive is not None:
            self._prune(self._archive)

    def bound_cache(self) -> None:
        """What the build cache has too much of."""
        self._images.bound_cache(self._rules.build_cache)

    def _prune_some(self, tried: set[str]) -> bool:
        """A few at a time, so that nobody who publishes waits for long; False where nothing more is to be done.

        What goes is decided while nobody publishes: all that was pushed is written down by then.
        """
        with self._nobody_publishes() as alone:
            if not alone:
                return False
            found = self._images.strays(self._kept(), self._pipeline.image_labels)
            strays = [names for names in found if not tried.issuperset(names)]
            for names in strays[:_AT_ONCE]:
                tried.update(names)
                for name in names:
                    self._images.remove(name)
        return len(strays) > _AT_ONCE

    def _prune(self, archive: ImageArchive) -> None:
        with self._store.transaction() as records:
            projects = [project.name for project in records.projects.all()]
        with self._nobody_publishes() as alone:
            if alone:
                keep = self._kept()
                for project in projects:
                    self._reclaim_due |= bool(archive.prune(project, keep))
                if self._reclaim_due:
                    archive.reclaim()
                    self._reclaim_due = False

    def _kept(self) -> set[str]:
        with self._store.transaction() as records:
            return records.releases.images()

    def _retire(self) -> None:
        with self._store.transaction() as records:
            releases = unneeded(records.releases.uses(), self._rules.releases)
            if releases:
                # Whoever has just found one of them writes it down before we go on; then we look again.
                records.releases.hold(releases)
                records.releases.note_removed(releases & unneeded(records.releases.uses(), self._rules.releases))

    @contextmanager
    def _nobody_publishes(self) -> Iterator[bool]:
        """Wait for a moment in which nobody publishes, and keep it; False where none came.

        Where there is always somebody, those who come later have to wait until those who are at it have ended.
        """
        until = time.monotonic() + _WAIT
        while time.monotonic() < until:
            with self._store.alone(PUBLISHING) as alone:
                if alone:
                    yield True
                    return
            time.sleep(_PAUSE)
        with self._store.alone(PUBLISHING, wait=_INSIST) as alone:
            yield alone

    def prune_logs(self) -> None:
        """Logs of deployments that ended long ago or have many after them."""
        self._store.prune_logs(datetime.now(UTC) - self._rules.logs_for, self._rules.logs)


def _over(records: Records, number: int) -> bool:
    """Whether a deployment has ended. One that is in no book of ours is not ours to judge."""
    try:
        return records.deployments.get(number).state.final
    except NotFound:
        return False
