"""What operations need from the outside, as small Protocols that carry their promises.

Every promise is checked by the contract suite, which runs the same cases against the fakes and the real adapters.
Where nothing else is said: calls may be repeated (a repeat finds what is there), block until done, and raise
PlatformBroke when the server behind them is at fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from branchline.domain.config import Config, Secret
from branchline.domain.environment import Environment
from branchline.domain.manifest import HealthCheck, Limits


class Log(Protocol):
    """Where a stage's output goes: the deployment's log. Lines are redacted and bounded behind this."""

    def write(self, line: str) -> None:
        """Add one line; a trailing newline is not needed."""

    def hide(self, secrets: Sequence[Secret]) -> None:
        """From now on these values appear as `[hidden]`."""

    @property
    def last(self) -> str:
        """The last line that was not empty, as it stands in the log."""


class Interrupt(Protocol):
    """Says when to stop: somebody cancelled, the time limit passed, or another runner took over."""

    def check(self) -> None:
        """Raise when it is time to stop: Cancelled, DeploymentFailed `stage_timed_out`, PlatformBroke `taken_over`.

        Cheap enough to be called several times a second. Whoever waits or runs a child calls it.
        """

    def wait(self, seconds: float) -> None:
        """Sleep, but wake up and raise as `check` does."""


# --- git -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Revision:
    """A commit that a ref pointed to. `ref` is a full name, `refs/heads/…` or `refs/tags/…`."""

    ref: str
    commit: str
    subject: str


class Source(Protocol):
    """The repositories of projects."""

    def resolve(self, project: str, repository: str, ref: str, commit: str | None = None) -> Revision:
        """Fetch and say what `ref` is: a full ref, or a short name (a branch is preferred to a tag).

        With `commit` (full or abbreviated to at least 7 digits) that commit, which must be reachable from the ref.
        Raises BadInput: `unknown_ref`, `unknown_commit`, `repository_unreachable`, `repository_refused` (asks for a
        password or a key that we do not have), each with what git said in the hint.
        """

    def read(self, project: str, commit: str, path: str) -> str | None:
        """The text of a file in a commit that was resolved before; None where there is none.

        Raises BadInput: `unreadable_file` (not UTF-8, or above 1 MiB), `unknown_commit`.
        """

    def checkout(self, project: str, repository: str, commit: str, folder: Path, log: Log, stop: Interrupt) -> None:
        """Put exactly this commit into `folder` (emptied first), submodules included; leaves no credentials there.

        Raises DeploymentFailed: `unknown_commit` (force-pushed away meanwhile), `submodule_failed`; PlatformBroke:
        `repository_unreachable`, `repository_refused`, `checkout_failed`.
        """


# --- images ----------------------------------------------------------------------------------------------------------


class Images(Protocol):
    """Builds images and keeps them in the registry."""

    def build(
        self,
        context: Path,
        *,
        dockerfile: str,
        target: str | None,
        args: Mapping[str, str],
        tag: str,
        labels: Mapping[str, str],
        log: Log,
        stop: Interrupt,
    ) -> str:
        """Build with BuildKit, tag the image locally and return its id (`sha256:…`).

        Raises DeploymentFailed (`build_failed`) with the step that failed in the sentence.
        """

    def publish(self, image: str, repository: str, tag: str, log: Log, stop: Interrupt) -> str:
        """Push a local image as `repository:tag`; return the reference by digest, `repository@sha256:…`.

        The returned reference holds no registry host: the platform's registry may move.
        """

    def pull(self, reference: str, log: Log, stop: Interrupt) -> str:
        """Make sure that an image published by us is on this machine; return the name that containers start from."""

    def remove(self, name: str) -> None:
        """Remove a local image or tag; what is not there is fine, what a container uses stays."""


# --- containers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ServiceSpec:
    """What to start for one service of one deployment."""

    name: str
    image: str
    command: tuple[str, ...]
    replicas: int = 1
    port: int | None = None
    variables: Mapping[str, Secret] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    stop_grace_period: float = 30.0


@dataclass(frozen=True)
class Instance:
    """One container of a service. `address` is where the proxy and probes reach it (an IP address)."""

    name: str
    service: str
    replica: int
    deployment: int
    address: str
    port: int | None


@dataclass(frozen=True)
class InstanceState:
    """What an instance is doing. `restarts` counts crashes since we started it."""

    exists: bool
    running: bool = False
    exit_code: int | None = None
    out_of_memory: bool = False
    restarts: int = 0


class Containers(Protocol):
    """Runs an environment's containers, in a network of its own that no other environment reaches."""

    def ensure_network(self, environment: Environment) -> None:
        """Make the environment's network."""

    def start(
        self, environment: Environment, deployment: int, services: Sequence[ServiceSpec], stop: Interrupt
    ) -> list[Instance]:
        """Start every replica of every service, named by the deployment; those of another deployment stay untouched.

        Services of one deployment reach each other by service name. Addresses stay the same when a container or the
        machine restarts. Repeating finds the containers that are there, and starts those that stopped. One that
        crashes at once counts as started; `state` tells.

        Raises DeploymentFailed: `command_not_found`, `command_not_executable`, `bad_image` (with all containers of the
        deployment removed), `too_many_containers`.
        """

    def instances(self, environment: Environment, deployment: int | None = None) -> list[Instance]:
        """The containers of a deployment (or of all of the environment's), stopped ones included."""

    def state(self, instance: Instance) -> InstanceState:
        """What an instance is doing now."""

    def tail(self, instance: Instance, lines: int = 50) -> list[str]:
        """The last lines of what it wrote."""

    def probe_command(self, instance: Instance, command: Sequence[str], timeout: float) -> tuple[bool, str]:
        """Run a command in the container: whether it exited with 0 in time, and its last line, or what went wrong.

        As in `exited with 1: …`, `no answer within 5 s`. A command that takes too long is given up.
        """

    def run(
        self,
        environment: Environment,
        name: str,
        deployment: int,
        image: str,
        command: Sequence[str],
        variables: Mapping[str, Secret],
        limits: Limits,
        log: Log,
        stop: Interrupt,
    ) -> int:
        """Run a command once in a container of its own and return its exit status; the container is removed.

        Named by deployment and `name`: where an earlier attempt still runs, it is joined, not doubled; where it ended
        unseen, its output and status count. When `stop` says to end (DeploymentFailed, so also Cancelled), the
        container is killed first; for any other error it runs on, for the next attempt to join. Raises
        DeploymentFailed as `start` does.
        """

    def stop(self, environment: Environment, deployment: int, grace: float) -> None:
        """SIGTERM all containers of a deployment at once, SIGKILL after `grace` seconds, remove them.

        One-off commands included. An image may name another signal than SIGTERM (STOPSIGNAL).
        """

    def destroy(self, environment: Environment) -> None:
        """Remove all containers and the network of an environment."""


class Probes(Protocol):
    """Looks at an instance from outside, once."""

    def probe(self, instance: Instance, check: HealthCheck) -> tuple[bool, str]:
        """Whether the instance is healthy right now, and a few words of what was seen (`HTTP 500`, `no answer`)."""


# --- traffic ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """Requests under a path prefix go to any of these targets (`address:port`)."""

    prefix: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Traffic:
    """Requests that the proxy answered for an environment within a span of time."""

    requests: int
    errors: int


class Proxy(Protocol):
    """Sends requests to containers."""

    def switch(self, environment: Environment, hostnames: Sequence[str], routes: Sequence[Route]) -> None:
        """Send all traffic of these hostnames to these routes, in one atomic move; no request is lost.

        No routes at all removes the environment from the proxy. Hostnames that it had before and are not named any
        more stop answering. Raises DeploymentFailed (`too_many_routes`) above 8 prefixes or 8 targets a prefix.
        """

    def routes(self, environment: Environment) -> list[Route]:
        """What the environment's traffic goes to now; empty where nothing was ever switched."""

    def in_flight(self, targets: Sequence[str]) -> int:
        """Requests that these targets have not finished, WebSockets and event streams included."""

    def mark(self) -> int:
        """A point in the proxy's record of requests, for `traffic`."""

    def traffic(self, hostnames: Sequence[str], since: int) -> Traffic:
        """What was answered for these hostnames since a mark."""

    def url(self, hostname: str) -> str:
        """The address that people open."""


# --- config and databases --------------------------------------------------------------------------------------------


class ConfigReader(Protocol):
    """Reads an environment's config with that environment's own identity (runner side)."""

    def read(self, environment: Environment, version: int | None = None) -> Config:
        """The config now, or at a version that a deployment pinned.

        An environment that never had any has an empty config of version 0. Raises PlatformBroke `config_gone` where
        the pinned version no longer exists, `config_unreachable` where the store does not answer.
        """


class ConfigWriter(Protocol):
    """Changes config (server side). Production's values can be written here but not read."""

    def read(self, project: str, environment: str) -> Config:
        """A nonprod environment's config; raises Refused for production."""

    def keys(self, project: str, environment: str) -> tuple[list[str], int]:
        """The keys that are set, sorted, and the version; works for production too."""

    def write(
        self,
        project: str,
        environment: str,
        changes: Mapping[str, Secret | None],
        *,
        expected_version: int | None = None,
    ) -> int:
        """Set (or with None unset) some keys, check-and-set; return the new version.

        Raises Conflict (`config_changed`) when somebody else wrote in between: nothing was written then.
        """


class Databases(Protocol):
    """The databases of environments on their tier's server."""

    def ensure(self, environment: Environment, database: str) -> Secret:
        """Make the environment's database and role; return its URL as containers reach it.

        The role owns its database, can migrate it, and reaches no other.
        """

    def ensure_scratch(self, environment: Environment, database: str, name: str) -> Secret:
        """An empty throw-away database for tests, made anew on each call."""

    def drop_scratch(self, environment: Environment, database: str, name: str) -> None:
        """Drop it, ending whatever is connected."""


# --- the engine ------------------------------------------------------------------------------------------------------


class Durable(Protocol):
    """Remembers what was done, so that a story goes on after a crash where it stopped."""

    def step(self, name: str, function: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Run the function and remember its JSON result under `name`; a resumed story gets what was remembered.

        A function that was interrupted is run again: it must be idempotent.
        """
