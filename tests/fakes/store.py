"""A store in memory. A transaction that raises leaves no trace, as in the real one."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from branchline.config_records import ConfigChange, Done
from branchline.deployment_records import StageRecord
from branchline.domain.access import Actor
from branchline.domain.audit import ENDS, AuditEvent, Lines, Recorded, Wanted
from branchline.domain.chain import ORIGIN, Head, Link, Seal, hash_of
from branchline.domain.changes import Changes
from branchline.domain.deployment import Deployment, Failure, Fence, State, Trigger
from branchline.domain.environment import Destination, Environment, Tier
from branchline.domain.errors import Conflict, NotFound, PlatformBroke, TakenOver
from branchline.domain.layers import Layer
from branchline.domain.manifest import Manifest
from branchline.domain.pipeline import Stage, StageState
from branchline.domain.project import Project
from branchline.domain.release import Release
from branchline.domain.retention import Use
from branchline.ports import Revision
from branchline.records import GONE_STAGE, GONE_TEXT, Line
from tests.fakes.logins import LoginTables, MemoryDeviceLogins, MemoryPendingLogins, MemorySessions
from tests.fakes.people import MemoryMembers, MemoryTokens, People


@dataclass
class Tables:
    """Everything that the store holds. `witness` is told of what happens to stages, before it is written."""

    projects: dict[str, Project] = field(default_factory=dict)
    environments: dict[int, Environment] = field(default_factory=dict)
    hostnames: dict[str, int] = field(default_factory=dict)
    releases: dict[int, tuple[str, Release]] = field(default_factory=dict)
    imageless: set[int] = field(default_factory=set)
    deployments: dict[int, Deployment] = field(default_factory=dict)
    runners: dict[int, str] = field(default_factory=dict)
    noted: set[int] = field(default_factory=set)
    compared: dict[int, str] = field(default_factory=dict)
    stages: dict[tuple[int, Stage], StageRecord] = field(default_factory=dict)
    events: list[tuple[datetime, AuditEvent]] = field(default_factory=list)
    seals: list[Seal] = field(default_factory=list)
    people: People = field(default_factory=People)
    changes: list[ConfigChange] = field(default_factory=list)
    logins: LoginTables = field(default_factory=LoginTables)
    witness: Callable[[str, Stage | None], None] = lambda _moment, _stage: None


def _now() -> datetime:
    return datetime.now(UTC)


class MemoryProjects:
    def __init__(self, tables: Tables) -> None:
        self._t = tables

    def add(self, name: str, repository: str) -> Project:
        if name in self._t.projects:
            raise Conflict(f"There is a project {name} already.", code="project_exists")
        self._t.projects[name] = Project(len(self._t.projects) + 1, name, repository)
        return self._t.projects[name]

    def get(self, name: str) -> Project:
        if name not in self._t.projects:
            raise NotFound(f"There is no project {name!r}.", code="unknown_project")
        return self._t.projects[name]

    def all(self) -> list[Project]:
        return [self._t.projects[name] for name in sorted(self._t.projects)]


class MemoryEnvironments:
    def __init__(self, tables: Tables) -> None:
        self._t = tables

    def ensure(self, project: Project, destination: Destination) -> Environment:
        for environment in self._t.environments.values():
            if (environment.project, environment.name) == (project.name, destination.name):
                self._t.environments[environment.id] = replace(environment, inherits=destination.inherits)
                return self._t.environments[environment.id]
        taken = {one.slot for one in self._t.environments.values()}
        slot = next(number for number in range(1, len(taken) + 2) if number not in taken)
        number = len(self._t.environments) + 1
        self._t.environments[number] = Environment(
            number, project.name, destination.name, destination.tier, slot, inherits=destination.inherits
        )
        return self._t.environments[number]

    def get(self, project: str, name: str) -> Environment:
        for environment in self._t.environments.values():
            if (environment.project, environment.name) == (project, name):
                return environment
        raise NotFound(f"{project} has no environment {name!r}.", code="unknown_environment")

    def lock(self, environment: Environment) -> None:
        """A transaction in memory is alone anyway."""

    def of(self, project: str) -> list[Environment]:
        mine = [one for one in self._t.environments.values() if one.project == project]
        return sorted(mine, key=lambda one: one.name)

    def of_tier(self, tier: Tier) -> list[Environment]:
        mine = [one for one in self._t.environments.values() if one.tier is tier]
        return sorted(mine, key=lambda one: (one.project, one.name))

    def claim_hostnames(self, environment: Environment, hostnames: Sequence[str]) -> None:
        for name in hostnames:
            if self._t.hostnames.get(name, environment.id) != environment.id:
                raise Conflict(f"The hostname {name} belongs to another environment.", code="hostname_taken")
        for name in self.hostnames(environment):
            del self._t.hostnames[name]
        self._t.hostnames.update(dict.fromkeys(hostnames, environment.id))

    def hostnames(self, environment: Environment) -> list[str]:
        return sorted(name for name, owner in self._t.hostnames.items() if owner == environment.id)

    def some(self, environments: Collection[int]) -> dict[int, tuple[Environment, str | None]]:
        known = {number: self._t.environments[number] for number in environments if number in self._t.environments}
        return {number: (one, next(iter(self.hostnames(one)), None)) for number, one in known.items()}

    def owners(self, hostnames: Sequence[str]) -> dict[str, int]:
        return {name: self._t.hostnames[name] for name in hostnames if name in self._t.hostnames}

    def set_live(self, environment: Environment, deployment: int | None) -> None:
        known = self._t.environments[environment.id]
        self._t.environments[environment.id] = replace(known, live_deployment=deployment, trouble="")

    def note_trouble(self, environment: Environment, trouble: str) -> None:
        known = self._t.environments[environment.id]
        self._t.environments[environment.id] = replace(known, trouble=trouble)


class MemoryReleases:
    def __init__(self, tables: Tables) -> None:
        self._t = tables

    def find(self, project: Project, build_key: str) -> Release | None:
        for key, release in self._t.releases.values():
            if (release.project, key) == (project.name, build_key) and release.id not in self._t.imageless:
                return release
        return None

    def add(self, project: Project, commit: str, build_key: str, image: str, manifest: Manifest) -> Release:
        if (known := self.find(project, build_key)) is not None:
            return known
        for key, release in self._t.releases.values():
            if (release.project, key) == (project.name, build_key):
                self._t.imageless.discard(release.id)
                self._t.releases[release.id] = (key, replace(release, image=image))
                return self.get(release.id)
        mine = [release for _, release in self._t.releases.values() if release.project == project.name]
        number = len(self._t.releases) + 1
        self._t.releases[number] = (
            build_key,
            Release(number, project.name, len(mine) + 1, commit, image, manifest),
        )
        return self._t.releases[number][1]

    def get(self, release: int) -> Release:
        if release not in self._t.releases:
            raise NotFound(f"There is no release {release}.", code="unknown_release")
        return self._t.releases[release][1]

    def built(self, releases: Collection[int]) -> dict[int, tuple[int, str]]:
        known = {number: self._t.releases[number][1] for number in releases if number in self._t.releases}
        return {number: (one.number, one.image) for number, one in known.items()}

    def uses(self) -> list[Use]:
        uses = []
        for place in self._t.environments.values():
            here = [one for one in self._t.deployments.values() if one.environment_id == place.id]
            live = self._t.deployments[place.live_deployment] if place.live_deployment else None
            for release in {one.release for one in here if one.release} - self._t.imageless:
                mine = [one for one in here if one.release == release]
                succeeded = max((one.id for one in mine if one.state is State.SUCCEEDED), default=None)
                wanted = {live.id, live.replaces} if live else set()
                wanted |= {max(one.id for one in here), *(one.id for one in mine if not one.state.final)}
                uses.append(Use(release, place.id, succeeded, any(one.id in wanted for one in mine)))
        return uses

    def hold(self, releases: Collection[int]) -> None:
        """One transaction at a time: nobody else is about to use anything."""

    def note_removed(self, releases: Collection[int]) -> None:
        self._t.imageless |= set(releases)

    def images(self) -> set[str]:
        return {release.image for _, release in self._t.releases.values() if release.id not in self._t.imageless}


class MemoryDeployments:
    def __init__(self, tables: Tables) -> None:
        self._t = tables

    def _change(self, deployment: int, **values: Any) -> Deployment:
        self._t.deployments[deployment] = replace(self.get(deployment), **values)
        return self._t.deployments[deployment]

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
        number = len(self._t.deployments) + 1
        self._t.deployments[number] = Deployment(
            id=number,
            project=environment.project,
            environment=environment.name,
            environment_id=environment.id,
            ref=revision.ref,
            commit=revision.commit,
            subject=revision.subject,
            state=State.QUEUED,
            actor=actor,
            proof=proof,
            source=source,
            trigger=trigger,
            reason=reason,
            requested_at=_now(),
        )
        return self._t.deployments[number]

    def supersede(self, newer: Deployment) -> list[int]:
        older = [
            one.id
            for one in self._t.deployments.values()
            if one.environment_id == newer.environment_id and one.state is State.QUEUED and one.id < newer.id
        ]
        for number in older:
            self._change(number, state=State.SUPERSEDED, superseded_by=newer.id, finished_at=_now())
        return older

    def get(self, deployment: int) -> Deployment:
        if deployment not in self._t.deployments:
            raise NotFound(f"There is no deployment {deployment}.", code="unknown_deployment")
        return self._t.deployments[deployment]

    def page(
        self, projects: Collection[str] | None, environment: str | None, before: int | None, limit: int
    ) -> list[Deployment]:
        found = [
            one
            for one in self._t.deployments.values()
            if (projects is None or one.project in projects)
            and environment in (None, one.environment)
            and (before is None or one.id < before)
        ]
        return sorted(found, key=lambda one: -one.id)[:limit]

    def ask_to_cancel(self, deployment: int, by: str) -> None:
        self._change(deployment, cancel_requested=True, cancelled_by=self.get(deployment).cancelled_by or by)

    def claim(self, tier: Tier, runner: str) -> Deployment | None:
        everything = self._t.deployments.values()
        running = [one for one in everything if one.state is State.RUNNING]
        busy = {one.environment_id for one in running}
        waiting = [
            one
            for one in everything
            if one.state is State.QUEUED
            and one.environment_id not in busy
            and self._t.environments[one.environment_id].tier is tier
        ]
        if not waiting:
            return None
        load = [one.project for one in running]
        chosen = min(waiting, key=lambda one: (load.count(one.project), one.id))
        self._t.runners[chosen.id] = runner
        taken = {"started_at": _now(), "attempt": chosen.attempt + 1, "runner": runner}
        return self._change(chosen.id, state=State.RUNNING, **taken)

    def take_over(self, deployment: int, runner: str, instead_of: str) -> Deployment | None:
        about = self.get(deployment)
        if self._t.runners.get(deployment) != instead_of or about.state is not State.RUNNING:
            return None
        self._t.runners[deployment] = runner
        return self._change(deployment, attempt=about.attempt + 1, runner=runner)

    def hold(self, fence: Fence) -> bool:
        about = self.get(fence.deployment)
        if about.fence != fence:
            raise TakenOver(f"The runner {self._t.runners.get(fence.deployment)} carries it now.")
        return about.cancel_requested

    def carried_by(self, deployment: int) -> tuple[Fence, bool]:
        about = self.get(deployment)
        return about.fence, about.cancel_requested

    def running(self, tier: Tier) -> list[tuple[int, str]]:
        return [
            (one.id, self._t.runners[one.id])
            for one in sorted(self._t.deployments.values(), key=lambda one: one.id)
            if one.state is State.RUNNING and self._t.environments[one.environment_id].tier is tier
        ]

    def under_way(self, environment: Environment) -> list[int]:
        there = (one for one in self._t.deployments.values() if one.environment_id == environment.id)
        return sorted(one.id for one in there if not one.state.final)

    def at_work(self, tier: Tier) -> set[int]:
        return {self.get(number).environment_id for number, _ in self.running(tier)}

    def begin_stage(self, deployment: int, stage: Stage) -> StageRecord:
        known = self._t.stages.get((deployment, stage))
        new = StageRecord(stage, StageState.RUNNING, _now(), None, "")
        begun = replace(known, attempts=known.attempts + 1) if known else new
        self._t.witness("begin", stage)
        self._t.stages[deployment, stage] = begun
        return begun

    def end_stage(
        self, deployment: int, stage: Stage, state: StageState, note: str, result: Mapping[str, Any] | None = None
    ) -> StageRecord | None:
        self._t.witness("end", stage)
        if self._t.stages[deployment, stage].result is not None:
            return None
        kept = json.loads(json.dumps(result))
        self._change_stage(deployment, stage, state=state, note=note, result=kept, finished_at=_now())
        return self._t.stages[deployment, stage]

    def note_hung(self, deployment: int, stage: Stage) -> None:
        self._change_stage(deployment, stage, hung=True)

    def _change_stage(self, deployment: int, stage: Stage, **values: Any) -> None:
        self._t.stages[deployment, stage] = replace(self._t.stages[deployment, stage], **values)

    def stages(self, deployment: int) -> list[StageRecord]:
        return [record for (number, _), record in self._t.stages.items() if number == deployment]

    def note_replaces(self, deployment: int) -> int | None:
        if deployment not in self._t.noted:
            self._t.noted.add(deployment)
            about = self.get(deployment)
            self._change(deployment, replaces=self._t.environments[about.environment_id].live_deployment)
        return self.get(deployment).replaces

    def note_switched(self, deployment: int) -> bool:
        first = self.get(deployment).switched_at is None
        if first:
            self._change(deployment, switched_at=_now())
        return first

    def note_undone(self, deployment: int) -> bool:
        first = self.get(deployment).undone_at is None
        if first:
            self._change(deployment, undone_at=_now())
        return first

    def replaced_by(self, deployment: Deployment) -> Deployment | None:
        later = (self._t.deployments[number] for number in sorted(self._t.deployments) if number > deployment.id)
        there = [one for one in later if one.environment_id == deployment.environment_id]
        stayed = (one for one in there if one.replaces == deployment.id and one.switched_at and not one.undone_at)
        return next(stayed, None)

    def note_changes(self, deployment: int, changes: Changes) -> None:
        self._t.compared.setdefault(deployment, json.dumps(changes.to_json()))

    def changes(self, deployment: int) -> Changes | None:
        kept = self._t.compared.get(deployment)
        return Changes.from_json(json.loads(kept)) if kept else None

    def note_release(self, deployment: int, release: int) -> None:
        self._change(deployment, release=release)

    def note_config(self, deployment: int, versions: Mapping[str, int]) -> None:
        if self.get(deployment).config is None:
            self._change(deployment, config=dict(versions))

    def finish(
        self, deployment: int, state: State, failed_stage: Stage | None = None, failure: Failure | None = None
    ) -> bool:
        self._t.witness("finish", None)
        if self.get(deployment).state.final:
            return False
        self._change(deployment, state=state, failed_stage=failed_stage, failure=failure, finished_at=_now())
        return True

    def count_by_state(self) -> dict[tuple[State, Tier], int]:
        counts: dict[tuple[State, Tier], int] = {}
        for one in self._t.deployments.values():
            key = (one.state, self._t.environments[one.environment_id].tier)
            counts[key] = counts.get(key, 0) + 1
        return counts


class MemoryRegister:
    """The chain is made anew whenever somebody asks."""

    def __init__(self, tables: Tables) -> None:
        self._t = tables

    def add(self, event: AuditEvent) -> None:
        self._t.events.append((_now(), event))

    def page(self, wanted: Wanted, before: int | None, limit: int) -> Lines:
        found = [
            line
            for line in reversed(self._lines())
            if all(getattr(wanted, name) in (None, getattr(line, name)) for name in ("project", "environment"))
            and all(getattr(wanted, name) in (None, getattr(line, name)) for name in ("actor", "kind"))
            and (wanted.projects is None or line.project in wanted.projects)
            and (wanted.since is None or line.at >= wanted.since)
            and (wanted.until is None or line.at < wanted.until)
            and (not wanted.text or wanted.text.casefold() in line.body.casefold())
            and (before is None or line.id < before)
        ]
        return Lines(found[:limit], found[limit - 1].id if len(found) > limit else None)

    def head(self) -> Head | None:
        links = self.links(0, len(self._t.events), len(self._t.events))
        return Head(links[-1].seq, links[-1].hash) if links else None

    def links(self, after: int, upto: int, limit: int) -> list[Link]:
        links, previous = [], ORIGIN
        for line in self._lines():
            links.append(Link(line.id, previous, line.body, hash_of(previous, line.body)))
            previous = links[-1].hash
        return [link for link in links if after < link.seq <= upto][:limit]

    def seal(self, seal: Seal) -> None:
        self._t.seals.append(seal)

    def seals(self, after: int, upto: int) -> list[Seal]:
        mine = [one for one in self._t.seals if after < one.seq <= upto]
        return sorted(mine, key=lambda one: one.seq)

    def newest_seal(self) -> Seal | None:
        return max(self._t.seals, key=lambda one: one.seq, default=None)

    def ended_since(self, after: int) -> bool:
        return any(line.kind in ENDS for line in self._lines()[after:])

    def _lines(self) -> list[Recorded]:
        return [Recorded(number, at, **vars(event)) for number, (at, event) in enumerate(self._t.events, 1)]


class MemoryConfigChanges:
    def __init__(self, tables: Tables) -> None:
        self._t = tables

    def begin(
        self,
        project: Project,
        layer: Layer,
        base: int,
        actor: Actor,
        keys: Mapping[str, Done],
        at: datetime | None = None,
    ) -> int:
        number = self._t.changes[-1].id + 1 if self._t.changes else 1
        made = ConfigChange(number, layer, base, None, actor.name, at or _now(), dict(keys), actor.proof, actor.source)
        self._t.changes.append(made)
        return number

    def end(self, change: int, version: int) -> ConfigChange | None:
        for place, known in enumerate(self._t.changes):
            if known.id == change and known.version is None:
                self._t.changes[place] = replace(known, version=version)
                self._t.changes[:] = [
                    one
                    for one in self._t.changes
                    if one.id == change or (one.layer, one.version) != (known.layer, version)
                ]
                return replace(known, version=version)
        return None

    def forget(self, change: int) -> bool:
        before = len(self._t.changes)
        self._t.changes[:] = [one for one in self._t.changes if one.id != change or one.version is not None]
        return len(self._t.changes) < before

    def unfinished(self) -> list[ConfigChange]:
        return [one for one in self._t.changes if one.version is None]

    def of(self, layer: Layer) -> list[ConfigChange]:
        return [one for one in reversed(self._t.changes) if one.layer == layer]


class MemoryRecords:
    def __init__(self, tables: Tables) -> None:
        self.projects = MemoryProjects(tables)
        self.environments = MemoryEnvironments(tables)
        self.releases = MemoryReleases(tables)
        self.deployments = MemoryDeployments(tables)
        self.register = MemoryRegister(tables)
        self.members = MemoryMembers(tables.people, tables.projects)
        self.tokens = MemoryTokens(tables.people)
        self.config = MemoryConfigChanges(tables)
        self.sessions = MemorySessions(tables.logins)
        self.pending_logins = MemoryPendingLogins(tables.logins)
        self.device_logins = MemoryDeviceLogins(tables.logins)


class MemoryStore:
    """Port `Store`. `away` makes it as unreachable as a stopped database."""

    def __init__(self) -> None:
        self.tables = Tables()
        self.log: list[tuple[int, Line]] = []
        self.away = False
        self.held: Counter[str] = Counter()
        self.awaited: Counter[str] = Counter()
        self._lock = threading.RLock()

    def _check(self) -> None:
        if self.away:
            raise PlatformBroke("The platform's own database does not answer.", code="store_unreachable")

    @contextmanager
    def transaction(self) -> Iterator[MemoryRecords]:
        with self._lock:
            self._check()
            before = copy.deepcopy(self.tables)
            try:
                yield MemoryRecords(self.tables)
            except BaseException:
                self.tables.__dict__.update(before.__dict__)
                raise

    @contextmanager
    def alone(self, name: str, *, shared: bool = False, wait: float = 0.0) -> Iterator[bool]:
        self._check()
        free = self._enter(name, shared)
        if not free and wait:
            self.awaited[name] += 1
            until = time.monotonic() + wait
            while not (free := self._enter(name, shared, in_line=True)) and time.monotonic() < until:
                time.sleep(0.002)
            self.awaited[name] -= 1
        try:
            yield free
        finally:
            if free:
                with self._lock:
                    self.held[name] -= 1 if shared else -1

    def _enter(self, name: str, shared: bool, in_line: bool = False) -> bool:
        with self._lock:
            free = self.held[name] >= 0 if shared else self.held[name] == 0
            free = free and (in_line or not self.awaited[name])
            if free:
                self.held[name] += 1 if shared else -1
            return free

    def append_log(self, deployment: int, lines: Sequence[tuple[datetime, str, str]]) -> None:
        self._check()
        with self._lock:
            for at, stage, text in lines:
                self.log.append((deployment, Line(len(self.log) + 1, at, stage, text.replace("\x00", "␀"))))

    def read_log(self, deployment: int, after: int, limit: int) -> list[Line]:
        self._check()
        return [line for number, line in self.log if number == deployment and line.seq > after][:limit]

    def before_the_last(self, deployment: int, count: int) -> int:
        lines = self.read_log(deployment, 0, 10**9)
        return lines[-count - 1].seq if len(lines) > count else 0

    def last_lines(self, deployment: int, stage: str, count: int) -> list[str]:
        self._check()
        return [line.text for number, line in self.log if number == deployment and line.stage == stage][-count:]

    def log_size(self, deployment: int) -> int:
        return sum(len(line.text) for number, line in self.log if number == deployment)

    def prune_logs(self, before: datetime, keep: int) -> int:
        old = set()
        for place in self.tables.environments.values():
            everything = sorted(self.tables.deployments.values(), key=lambda one: -one.id)
            ended = [one for one in everything if one.environment_id == place.id and one.finished_at]
            for newness, one in enumerate(ended):
                if (newness >= keep or one.finished_at < before) and one.id != place.live_deployment:
                    old.add(one.id)
        gone = {number for number, line in self.log if number in old and line.stage != GONE_STAGE}
        self.log = [(number, line) for number, line in self.log if number not in gone]
        for number in sorted(gone):
            self.append_log(number, [(_now(), GONE_STAGE, GONE_TEXT)])
        return len(gone)

    def stage_seconds(self) -> dict[str, tuple[int, float]]:
        seconds: dict[str, tuple[int, float]] = {}
        for record in self.tables.stages.values():
            if record.finished_at:
                count, total = seconds.get(record.name, (0, 0.0))
                took = (record.finished_at - record.started_at).total_seconds()
                seconds[record.name] = (count + 1, total + took)
        return seconds

    def ping(self) -> dict[str, Any]:
        self._check()
        return {}
