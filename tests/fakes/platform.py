"""The operations by hand, in memory: what the server calls, with its state in plain sight and faults to order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from branchline.domain.access import EVERYWHERE, Actor, Permission, Role, config_permission, deploy_permission
from branchline.domain.audit import Recorded, Wanted
from branchline.domain.chain import ORIGIN, Check, Head, Link, Seal, by_turns, hash_of, statement
from branchline.domain.config import check_key, check_value
from branchline.domain.deployment import State, Trigger
from branchline.domain.environment import Tier
from branchline.domain.errors import BadInput, Conflict, NotFound, Refused
from branchline.domain.names import check_name, slug
from branchline.domain.pipeline import Stage, StageState
from branchline.domain.project import check_repository
from branchline.operations.devices import Devices
from branchline.operations.failures import FailedLogins
from branchline.operations.gate import Gate
from branchline.operations.logins import Logins
from branchline.operations.members import Members
from branchline.operations.sessions import Sessions
from branchline.operations.tokens import Tokens, digest_of
from branchline.ports.logins import LoginProvider
from branchline.records import Records
from branchline.register_file import BEGINNING, Opening, end_line, row_line, seal_line
from branchline.signatures import signed_by, to_pem
from branchline.wire import (
    DeploymentView,
    EnvironmentView,
    FailureView,
    LogLine,
    MetricsView,
    Page,
    ProjectView,
    StageView,
)
from branchline.wire_audit import AuditLine, AuditPage, RegisterKey, Verification, VerificationStep
from branchline.wire_config import (
    ConfigDifference,
    ConfigHistory,
    ConfigKeys,
    ConfigValue,
    ConfigValues,
    ConfigVersion,
    KeyExplanation,
    KeyOrigin,
)
from branchline.wire_people import NewToken, TokenShown, TokenView
from tests.fakes.notary import FakeNotary
from tests.fakes.store import MemoryStore

COMMIT = "4f1d9c2e" * 5


class Part:
    """What each part of the platform shares."""

    def __init__(self, platform: FakePlatform) -> None:
        self.platform = platform

    def called(self, name: str) -> None:
        """Note a call; raise or wait as a test ordered."""
        self.platform.calls.append(name)
        if pause := self.platform.pauses.get(name):
            time.sleep(pause)
        if fault := self.platform.faults.get(name):
            raise fault


class FakeTokens(Part):
    """Tokens as `role` by the token itself."""

    def authenticate(self, presented: str, source: str = "") -> Actor:
        self.called("tokens.authenticate")
        for name, (token, role) in self.platform.known_tokens.items():
            if token == presented:
                return Actor(name, f"token {name}", {EVERYWHERE: role}, source=source)
        return self.real.authenticate(presented, source)

    @property
    def real(self) -> Tokens:
        """Those of members are the real ones."""
        return Tokens(self.platform.store, Gate(self.platform.store))

    def issue(self, records: Records, actor: Actor, name: str, days: int) -> TokenShown:
        return self.real.issue(records, actor, name, days)

    def recognise(self, digest: str, source: str = "", *, session: bool = False) -> Actor:
        for name, (token, role) in self.platform.known_tokens.items():
            if digest_of(token) == digest:
                return Actor(name, f"session by token {name}", {EVERYWHERE: role}, source=source)
        return self.real.recognise(digest, source, session=session)

    def end(self, actor: Actor, presented: str) -> None:
        self.platform.known_tokens = {k: one for k, one in self.platform.known_tokens.items() if one[0] != presented}
        self.real.end(actor, presented)

    def create(self, actor: Actor, new: NewToken) -> TokenShown:
        actor.require(Permission.PLATFORM)
        if new.name in self.platform.known_tokens:
            raise Conflict(f"There is a token {new.name} already.", code="token_exists")
        token = f"bl_{new.name}_{len(self.platform.known_tokens)}"
        self.platform.known_tokens[new.name] = (token, new.role or Role.VIEWER)
        return TokenShown(name=new.name, role=new.role, created_at=datetime.now(UTC), token=token)

    def list(self, actor: Actor) -> list[TokenView]:
        actor.require(Permission.PLATFORM)
        now = datetime.now(UTC)
        return [TokenView(name=n, role=role, created_at=now) for n, (_, role) in self.platform.known_tokens.items()]

    def revoke(self, actor: Actor, name: str, member: str | None = None) -> None:
        actor.require(Permission.PLATFORM)
        if self.platform.known_tokens.pop(name, None) is None:
            raise NotFound(f"There is no token {name[:60]!r}.")

    def bootstrap(self, keep: Callable[[str], None]) -> bool:
        if self.platform.known_tokens:
            return False
        keep("bl_first")
        self.platform.known_tokens["bootstrap"] = ("bl_first", Role.ADMIN)
        return True


class FakeProjects(Part):
    """Projects by name."""

    def add(self, actor: Actor, name: str, repository: str) -> ProjectView:
        actor.require(Permission.PROJECTS)
        check_name(name, "name of a project")
        check_repository(repository)
        if name in self.platform.repositories:
            raise Conflict(f"There is a project {name} already.", code="project_exists")
        self.platform.repositories[name] = repository
        return self.show(actor, name)

    def list(self, actor: Actor) -> list[ProjectView]:
        self.called("projects.list")
        actor.require(Permission.READ)
        return [self.show(actor, name) for name in sorted(self.platform.repositories)]

    def show(self, actor: Actor, name: str) -> ProjectView:
        actor.require(Permission.READ, name)
        if name not in self.platform.repositories:
            raise NotFound(f"There is no project {name[:60]!r}.", code="unknown_project")
        found = self.platform.environments.list(actor, name)
        return ProjectView(name=name, repository=self.platform.repositories[name], environments=found)


class FakeEnvironments(Part):
    """Environments by project and name."""

    def list(self, actor: Actor, project: str) -> list[EnvironmentView]:
        actor.require(Permission.READ)
        if project not in self.platform.repositories:
            raise NotFound(f"There is no project {project[:60]!r}.", code="unknown_project")
        return [self._view(*key) for key in sorted(self.platform.places) if key[0] == project]

    def show(self, actor: Actor, project: str, name: str) -> EnvironmentView:
        found = [one for one in self.list(actor, project) if one.name == name]
        if not found:
            raise NotFound(f"{project} has no environment {name[:60]!r}.", code="unknown_environment")
        return found[0]

    def _view(self, project: str, name: str) -> EnvironmentView:
        with self.platform.lock:
            views = [v for v in self.platform.views.values() if (v.project, v.environment) == (project, name)]
        newest = sorted(views, key=lambda view: -view.id)
        ended = (State.SUPERSEDED, State.CANCELLED)
        return EnvironmentView(
            project=project,
            name=name,
            tier=self.platform.places[project, name],
            url=f"http://{name}-{project}.localhost:8080",
            live=next((view for view in newest if view.live), None),
            running=next((view for view in newest if view.state is State.RUNNING), None),
            last=next((view for view in newest if view.state.final and view.state not in ended), None),
            queued=sum(view.state is State.QUEUED for view in newest),
            trouble=self.platform.troubles.get((project, name), ""),
        )


class FakeDeployments(Part):
    """Deployments; `branch NAME` goes to the environment of its slug, a tag to production."""

    def request(
        self, actor: Actor, project: str, ref: str, commit: str | None, trigger: Trigger, reason: str
    ) -> DeploymentView:
        self.called("deployments.request")
        self.platform.projects.show(actor, project)
        if ref == "nowhere":
            raise BadInput("There is no ref nowhere.", code="unknown_ref", hint="Push it first.")
        tier = Tier.PRODUCTION if ref.startswith(("v", "refs/tags/")) else Tier.NONPROD
        actor.require(deploy_permission(tier))
        name = "production" if tier is Tier.PRODUCTION else slug(ref.removeprefix("refs/heads/"))
        full = f"refs/tags/{ref}" if tier is Tier.PRODUCTION else f"refs/heads/{ref.removeprefix('refs/heads/')}"
        return self.platform.deployed(
            project, name, full, commit or COMMIT, tier=tier, actor=actor.name, trigger=trigger, reason=reason
        )

    def apply_config(
        self, actor: Actor, project: str, environment: str, trigger: Trigger, reason: str
    ) -> DeploymentView:
        live = self.platform.environments.show(actor, project, environment).live
        tier = self.platform.places[project, environment]
        actor.require(deploy_permission(tier))
        if live is None:
            raise Conflict("Nothing is live there.", code="nothing_live")
        return self.platform.deployed(
            project, environment, live.ref, live.commit, tier=tier, actor=actor.name, trigger=trigger, reason=reason
        )

    def cancel(self, actor: Actor, number: int) -> DeploymentView:
        view = self.show(actor, number)
        actor.require(Permission.DEPLOY)
        if view.state.final:
            raise Conflict(f"Deployment {number} has {view.state} already.", code="deployment_over")
        return self.platform.change(number, cancel_requested=True)

    def show(self, actor: Actor, number: int) -> DeploymentView:
        self.called("deployments.show")
        actor.require(Permission.READ)
        if number not in self.platform.views:
            raise NotFound(f"There is no deployment {number}.", code="unknown_deployment")
        return self.platform.views[number]

    def list(
        self,
        actor: Actor,
        project: str | None = None,
        environment: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Page:
        actor.require(Permission.READ)
        if project is not None:
            self.platform.projects.show(actor, project)
        found = [
            view
            for view in sorted(self.platform.views.values(), key=lambda view: -view.id)
            if project in {None, view.project}
            and environment in {None, view.environment}
            and (before is None or view.id < before)
        ]
        return Page(items=found[:limit], next=found[limit - 1].id if len(found) > limit else None)

    def log(self, actor: Actor, number: int, after: int, limit: int) -> list[LogLine]:
        self.called("deployments.log")
        self.show(actor, number)
        return [line for line in self.platform.logs.get(number, []) if line.seq > after][:limit]

    def before_the_last(self, actor: Actor, number: int, count: int) -> int:
        lines = self.log(actor, number, 0, 10**9)
        return lines[-count - 1].seq if len(lines) > count else 0

    def log_text(self, actor: Actor, number: int) -> Iterator[str]:
        lines = self.log(actor, number, 0, 10**9)
        return (f"{line.at:%H:%M:%S} {line.stage} {line.text}\n" for line in lines)


class FakeConfig(Part):
    """Config as dictionaries."""

    def keys(self, actor: Actor, project: str, environment: str) -> ConfigKeys:
        actor.require(Permission.READ)
        self.platform.environments.show(actor, project, environment)
        kept, version = self.platform.settings.get((project, environment), ({}, 0))
        keys = dict.fromkeys(sorted(kept), environment)
        return ConfigKeys(project=project, environment=environment, versions={environment: version}, keys=keys)

    def get(self, actor: Actor, project: str, environment: str, key: str) -> ConfigValue:
        actor.require(Permission.CONFIG_READ)
        self.platform.environments.show(actor, project, environment)
        check_key(key)
        if self.platform.places[project, environment] is Tier.PRODUCTION:
            raise Refused("Production's config is never shown.", code="write_only")
        kept, version = self.platform.settings.get((project, environment), ({}, 0))
        if key not in kept:
            raise NotFound(f"{key} is not set.", code="unknown_key")
        return ConfigValue(key=key, value=kept[key], layer=environment, version=version)

    def export(self, actor: Actor, project: str, environment: str, *, own: bool) -> ConfigValues:
        actor.require(Permission.CONFIG_READ)
        self.platform.environments.show(actor, project, environment)
        if self.platform.places[project, environment] is Tier.PRODUCTION:
            raise Refused("Production's config is never shown.", code="write_only")
        kept, version = self.platform.settings.get((project, environment), ({}, 0))
        return ConfigValues(versions={environment: version}, values=kept)

    def change(
        self,
        actor: Actor,
        project: str,
        environment: str,
        changes: Mapping[str, str | None],
        hidden: Collection[str],
        expected_version: int | None,
    ) -> ConfigVersion:
        self.called("config.change")
        self.platform.environments.show(actor, project, environment)
        actor.require(config_permission(self.platform.places[project, environment]))
        kept, version = self.platform.settings.get((project, environment), ({}, 0))
        if expected_version not in {None, version}:
            raise Conflict("Somebody else changed the config.", code="config_changed")
        for key, value in changes.items():
            check_key(key)
            if value is not None:
                check_value(key, value)
        merged = {k: v for k, v in (kept | dict(changes)).items() if v is not None}
        self.platform.settings[project, environment] = (merged, version + 1)
        return ConfigVersion(version=version + 1)


class FakeProvenance(Part):
    """Config whose every key was set just now, by whoever asks."""

    def explain(self, actor: Actor, project: str, environment: str, key: str | None) -> list[KeyExplanation]:
        keys = self.platform.config.keys(actor, project, environment)
        origin = KeyOrigin(layer=environment, version=keys.versions[environment], at=datetime.now(UTC), by=actor.name)
        return [KeyExplanation(key=one, origin=origin) for one in keys.keys if key in {None, one}]

    def history(self, actor: Actor, project: str, environment: str, key: str | None, limit: int) -> list[ConfigHistory]:
        keys = self.platform.config.keys(actor, project, environment)
        newest = keys.versions[environment]
        return [ConfigHistory(version=version, at=datetime.now(UTC)) for version in range(newest, 0, -1)][:limit]

    def diff(self, actor: Actor, project: str, left: str, right: str) -> list[ConfigDifference]:
        mine, other = (set(self.platform.config.keys(actor, project, one).keys) for one in (left, right))
        return [ConfigDifference(key=key, what="left" if key in mine else "right") for key in sorted(mine ^ other)]


class FakeAudit(Part):
    """The register as a list of lines, chained whenever somebody asks; seals and the notary are the platform's."""

    def list(self, actor: Actor, wanted: Wanted, before: int | None = None, limit: int = 100) -> AuditPage:
        actor.require(Permission.READ)
        found = [
            line
            for line in reversed(self.platform.register)
            if all(
                getattr(wanted, name) in {None, getattr(line, name)}
                for name in ("project", "environment", "actor", "kind")
            )
            and (wanted.since is None or line.at >= wanted.since)
            and (wanted.until is None or line.at < wanted.until)
            and (wanted.text or "").casefold() in str(line).casefold()
            and (before is None or line.id < before)
        ]
        return AuditPage(items=found[:limit], next=found[limit - 1].id if len(found) > limit else None)

    def verify(self, actor: Actor) -> Iterator[VerificationStep]:
        self.called("audit.verify")
        actor.require(Permission.PLATFORM)
        check = Check(signed_by([self.platform.notary.public]))
        for item in by_turns(self.links(), self.platform.seals):
            check.link(item) if isinstance(item, Link) else check.seal(item)
        yield VerificationStep(rows=check.rows)
        yield VerificationStep(rows=check.rows, done=Verification.of(check, check.end()))

    def export(self, actor: Actor, after: int) -> Iterator[str]:
        self.called("audit.export")
        actor.require(Permission.PLATFORM)
        links = self.links()
        start = Head(after, links[after - 1].hash) if after else BEGINNING
        yield Opening(start, {1: to_pem(self.platform.notary.public)}).line
        head = start
        seals = [seal for seal in self.platform.seals if seal.seq > after]
        for item in by_turns(links[after:], seals):
            yield row_line(item) if isinstance(item, Link) else seal_line(item)
            head = Head(item.seq, item.hash)
        if not self.platform.torn:
            yield end_line(head)

    def keys(self, actor: Actor) -> Sequence[RegisterKey]:
        actor.require(Permission.READ)
        return [RegisterKey(version=1, public_key=to_pem(self.platform.notary.public))]

    def links(self) -> Sequence[Link]:
        """The rows."""
        links, previous = [], ORIGIN
        for line in self.platform.register:
            body = Recorded(**dict(line)).body
            links.append(Link(line.id, previous, body, hash_of(previous, body)))
            previous = links[-1].hash
        return links

    def seal(self) -> None:
        """Seal the newest row."""
        newest = self.links()[-1]
        at = datetime.now(UTC)
        version, signature = self.platform.notary.sign(statement(Head(newest.seq, newest.hash), at))
        self.platform.seals.append(Seal(newest.seq, newest.hash, at, version, signature))


class FakePlatform:
    """All of it. `faults` maps an operation's name to what it raises, `pauses` to the seconds that it takes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls: list[str] = []
        self.faults: dict[str, Exception] = {}
        self.pauses: dict[str, float] = {}
        self.known_tokens: dict[str, tuple[str, Role]] = {role.value: (f"bl_{role}", role) for role in Role}
        self.repositories: dict[str, str] = {}
        self.places: dict[tuple[str, str], Tier] = {}
        self.troubles: dict[tuple[str, str], str] = {}
        self.views: dict[int, DeploymentView] = {}
        self.logs: dict[int, list[LogLine]] = {}
        self.settings: dict[tuple[str, str], tuple[dict[str, str], int]] = {}
        self.register: list[AuditLine] = []
        self.seals: list[Seal] = []
        self.notary = FakeNotary()
        self.torn = False
        self.parts: dict[str, str] = {"database": "ok"}
        self.tokens = FakeTokens(self)
        self.store = store = MemoryStore()
        self.members = Members(store, Gate(store))
        self.providers: list[LoginProvider] = []
        self.url = "http://localhost"
        self.sessions = Sessions(store, Gate(store), self.tokens)  # type: ignore[arg-type]
        self.follow(self.url)
        self.projects = FakeProjects(self)
        self.environments = FakeEnvironments(self)
        self.deployments = FakeDeployments(self)
        self.config = FakeConfig(self)
        self.provenance = FakeProvenance(self)
        self.audit = FakeAudit(self)

    def follow(self, url: str) -> None:
        """From now on browsers reach the server there."""
        self.url = url
        self.logins = Logins(self.store, self.sessions, FailedLogins(self.store), self.providers, url)
        self.devices = Devices(self.store, Gate(self.store), self.tokens, url)  # type: ignore[arg-type]

    def health(self) -> dict[str, str]:
        if fault := self.faults.get("health"):
            raise fault
        return self.parts

    def metrics(self) -> MetricsView:
        if fault := self.faults.get("metrics"):
            raise fault
        counts: dict[tuple[State, Tier], int] = {}
        for view in self.views.values():
            key = (view.state, self.places[view.project, view.environment])
            counts[key] = counts.get(key, 0) + 1
        return MetricsView(counts, {"build": (3, 12.5)})

    # --- what a runner would do ---

    def deployed(
        self, project: str, environment: str, ref: str, commit: str, *, tier: Tier = Tier.NONPROD, **more: Any
    ) -> DeploymentView:
        """Queue a deployment."""
        standard = {"actor": "ada", "trigger": Trigger.CLI, "reason": "", "subject": "Add the till"}
        with self.lock:
            self.places.setdefault((project, environment), tier)
            number = max(self.views, default=0) + 1
            view = DeploymentView(
                id=number,
                project=project,
                environment=environment,
                ref=ref,
                commit=commit,
                state=more.pop("state", State.QUEUED),
                requested_at=more.pop("requested_at", datetime.now(UTC)),
                url=f"http://{environment}-{project}.localhost:8080",
                **(standard | more),
            )
            self.views[number] = view
        return view

    def change(self, number: int, **changes: Any) -> DeploymentView:
        """Change what is known of a deployment."""
        with self.lock:
            self.views[number] = self.views[number].model_copy(update=changes)
        return self.views[number]

    def say(self, number: int, stage: str, *texts: str, at: datetime | None = None) -> None:
        """Add lines to a log; their numbers have gaps, as real ones do."""
        lines = self.logs.setdefault(number, [])
        for text in texts:
            seq = (lines[-1].seq if lines else 0) + 3
            lines.append(LogLine(seq=seq, at=at or datetime.now(UTC), stage=stage, text=text))

    def stage(
        self,
        number: int,
        stage: Stage,
        state: StageState = StageState.PASSED,
        seconds: float = 0.0,
        note: str = "",
        began: datetime | None = None,
    ) -> None:
        """Begin a stage, or end the one that began."""
        known = {one.name: one for one in self.views[number].stages}
        start = known[stage].started_at if stage in known else began or datetime.now(UTC)
        ended = None if state is StageState.RUNNING else start + timedelta(seconds=seconds)
        known[stage] = StageView(
            name=stage, state=state, started_at=start, finished_at=ended, seconds=seconds if ended else None, note=note
        )
        self.change(number, stages=list(known.values()))

    def finish(self, number: int, state: State, failure: FailureView | None = None, **more: Any) -> None:
        """End a deployment; one that succeeded is what is live from now on."""
        if state is State.SUCCEEDED:
            about = self.views[number]
            for other in list(self.views.values()):
                if (other.project, other.environment) == (about.project, about.environment) and other.live:
                    self.change(other.id, live=False)
            more.setdefault("live", True)
        more.setdefault("finished_at", datetime.now(UTC))
        self.change(number, state=state, failure=failure, **more)
