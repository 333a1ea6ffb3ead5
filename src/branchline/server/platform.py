"""What the server needs from the operations. They check every permission themselves; the server only says who asks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

from branchline.domain.access import Actor, Role
from branchline.domain.audit import Wanted
from branchline.domain.deployment import Trigger
from branchline.login_records import DeviceLogin
from branchline.operations.logins import Begun, Entered, Returned
from branchline.wire import (
    DeploymentView,
    EnvironmentView,
    LogLine,
    MetricsView,
    Page,
    ProjectView,
)
from branchline.wire_audit import AuditPage, RegisterKey, VerificationStep
from branchline.wire_config import (
    ConfigDifference,
    ConfigHistory,
    ConfigKeys,
    ConfigValue,
    ConfigValues,
    ConfigVersion,
    KeyExplanation,
)
from branchline.wire_logins import DeviceCodes, DeviceToken, LoginMethod, SessionView
from branchline.wire_people import MemberView, NewToken, TokenShown, TokenView


class Tokens(Protocol):
    """Personal tokens."""

    def authenticate(self, presented: str, source: str = "") -> Actor:
        """Say whose token this is; raises Unauthenticated for an unknown, revoked or expired one."""

    def create(self, actor: Actor, new: NewToken, /) -> TokenShown:
        """Make a token and show it, this one time; raises Conflict where the name is taken."""

    def list(self, actor: Actor) -> Sequence[TokenView]:
        """The actor's own, or for an admin all."""

    def revoke(self, actor: Actor, name: str, member: str | None = None, /) -> None: ...

    def end(self, actor: Actor, presented: str) -> None:
        """Revoke the token that the actor has at hand."""

    def bootstrap(self, keep: Callable[[str], None]) -> bool:
        """Make the first admin's token where there is no token at all yet, and hand it to `keep` before it is valid."""


class Members(Protocol):
    """People, and their roles and those of their groups."""

    def list(self, actor: Actor, project: str | None = None) -> Sequence[MemberView]: ...

    def add(
        self, actor: Actor, name: str, role: Role, project: str | None = None, email: str = "", *, group: bool = False
    ) -> MemberView:
        """Give a role in a project or everywhere."""

    def remove(self, actor: Actor, name: str, project: str | None = None, *, group: bool = False) -> None:
        """Take a role away; of a person, without a project, everything."""


class Projects(Protocol):
    """Projects, with their environments."""

    def add(self, actor: Actor, name: str, repository: str) -> ProjectView: ...

    def list(self, actor: Actor) -> Sequence[ProjectView]:
        """All projects, sorted by name, each with its environments."""

    def show(self, actor: Actor, name: str) -> ProjectView: ...


class Deployments(Protocol):
    """Deployments and their logs."""

    def request(
        self, actor: Actor, project: str, ref: str, commit: str | None, trigger: Trigger, reason: str
    ) -> DeploymentView:
        """Queue a deployment of what `ref` points to, or of `commit`, which must be reachable from it."""

    def apply_config(
        self, actor: Actor, project: str, environment: str, trigger: Trigger, reason: str
    ) -> DeploymentView:
        """Deploy what is live once more, with the newest config."""

    def cancel(self, actor: Actor, number: int, /) -> DeploymentView: ...

    def show(self, actor: Actor, number: int, /) -> DeploymentView: ...

    def list(
        self,
        actor: Actor,
        project: str | None = None,
        environment: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Page: ...

    def log(self, actor: Actor, number: int, after: int, limit: int, /) -> Sequence[LogLine]:
        """The lines after a `seq`, oldest first, at most `limit`."""

    def before_the_last(self, actor: Actor, number: int, count: int, /) -> int:
        """The `seq` after which the last `count` lines of a log come: 0 where it has no more than these."""

    def log_text(self, actor: Actor, number: int, /) -> Iterator[str]:
        """The whole log as text, in pieces that end with a newline."""


class Environments(Protocol):
    """The environments of a project."""

    def list(self, actor: Actor, project: str) -> Sequence[EnvironmentView]: ...

    def show(self, actor: Actor, project: str, name: str) -> EnvironmentView: ...


class Config(Protocol):
    """The config of environments."""

    def keys(self, actor: Actor, project: str, environment: str, /) -> ConfigKeys: ...

    def get(self, actor: Actor, project: str, environment: str, key: str, /) -> ConfigValue:
        """One value; raises Refused for production, whose values nobody can read here."""

    def export(self, actor: Actor, project: str, environment: str, *, own: bool) -> ConfigValues:
        """All values, or those of its own layer; raises Refused for production."""

    def change(
        self,
        actor: Actor,
        project: str,
        environment: str,
        changes: Mapping[str, str | None],
        hidden: Collection[str],
        expected_version: int | None,
        /,
    ) -> ConfigVersion:
        """Set keys, hide them, and with None take them out, all or nothing."""


class Provenance(Protocol):
    """Where config comes from, without values."""

    def explain(self, actor: Actor, project: str, environment: str, key: str | None, /) -> Sequence[KeyExplanation]: ...

    def history(
        self, actor: Actor, project: str, environment: str, key: str | None, limit: int, /
    ) -> Sequence[ConfigHistory]:
        """The versions of an environment's own layer, newest first."""

    def diff(self, actor: Actor, project: str, left: str, right: str, /) -> Sequence[ConfigDifference]: ...


class Logins(Protocol):
    """Logins with a provider."""

    @property
    def url(self) -> str:
        """Where browsers reach this server."""

    def providers(self) -> Sequence[LoginMethod]: ...

    def begin(self, provider: str, then: str) -> Begun:
        """Send a browser to a provider; raises NotFound, and PlatformBroke where the provider is at fault."""

    def finish(self, keepsake: str, returned: Returned) -> Entered:
        """Let a browser in that came back; raises Refused, and PlatformBroke where the provider is at fault."""

    def failed(self, method: str, code: str, source: str) -> None:
        """Write down that somebody failed to log in."""


class Sessions(Protocol):
    """Logins of browsers."""

    def begin_with_token(self, presented: str, source: str, agent: str) -> tuple[str, Actor]:
        """The id of a new session, and who it is; raises Unauthenticated."""

    def authenticate(self, session: str, source: str) -> Actor:
        """Who is logged in; raises Unauthenticated."""

    def end(self, session: str, source: str) -> None: ...

    def mine(self, actor: Actor, current: str = "") -> Sequence[SessionView]:
        """Newest first; `current` is the id of the one that asks."""

    def end_mine(self, actor: Actor) -> int:
        """Log the actor out everywhere; return of how many browsers."""

    def end_all_of(self, actor: Actor, name: str) -> int:
        """Log a member out everywhere; raises NotFound."""


class Devices(Protocol):
    """Devices that ask to be let in."""

    def ask(self, client: str, host: str, source: str) -> DeviceCodes: ...

    def waiting(self, actor: Actor, code: str) -> DeviceLogin:
        """The device that shows this code; raises NotFound."""

    def decide(self, actor: Actor, code: str, *, let_in: bool) -> DeviceLogin:
        """Let a device in, or send it away; raises NotFound."""

    def poll(self, code: str) -> DeviceToken:
        """The token of a device that was let in, once; raises NotLetIn."""


class Audit(Protocol):
    """The register."""

    def list(self, actor: Actor, wanted: Wanted, before: int | None = None, limit: int = 100) -> AuditPage: ...

    def verify(self, actor: Actor, /) -> Iterator[VerificationStep]:
        """Check every row and seal; the last step has what was found."""

    def export(self, actor: Actor, after: int, /) -> Iterator[str]:
        """The rows after a number as `register_file` describes them, in pieces that end with a newline."""

    def keys(self, actor: Actor, /) -> Sequence[RegisterKey]:
        """The public keys that the head was ever signed with."""


class Platform(Protocol):
    """All operations of the server. Each call may block: the server makes them in threads."""

    @property
    def tokens(self) -> Tokens: ...
    @property
    def members(self) -> Members: ...
    @property
    def projects(self) -> Projects: ...
    @property
    def deployments(self) -> Deployments: ...
    @property
    def environments(self) -> Environments: ...
    @property
    def config(self) -> Config: ...
    @property
    def provenance(self) -> Provenance: ...
    @property
    def logins(self) -> Logins: ...
    @property
    def sessions(self) -> Sessions: ...
    @property
    def devices(self) -> Devices: ...
    @property
    def audit(self) -> Audit: ...

    def health(self) -> dict[str, str]:
        """Each part of the platform: `ok`, or what is wrong with it. The part `database` decides over `/healthz`."""

    def metrics(self) -> MetricsView: ...
