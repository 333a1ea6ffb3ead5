"""An environment's containers, and how they are looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from branchline.domain.config import Secret
from branchline.domain.environment import Environment
from branchline.domain.manifest import HealthCheck, Limits
from branchline.ports.basics import Interrupt, Log


@dataclass(frozen=True)
class ServiceSpec:
    """What to start for one service of one deployment.

    `files` are secrets that its containers find in `/run/secrets`, in memory; None where there is no such folder.
    """

    name: str
    image: str
    command: tuple[str, ...]
    replicas: int = 1
    port: int | None = None
    variables: Mapping[str, Secret] = field(default_factory=dict)
    files: Mapping[str, Secret] | None = None
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


SECRETS = "/run/secrets"
"""Where containers find secrets that are files, as in Compose and Swarm."""

NETWORK = "the network"
STOPPED = " (stopped)"
FOLDER = "the folder of secrets"
INSIDE = f"{FOLDER} in "


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

        Raises DeploymentFailed: `command_not_found`, `command_not_executable`, `bad_image` (with those containers of
        the deployment removed that were not there before), `too_many_containers`.
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
        files: Mapping[str, Secret] | None = None,
    ) -> int:
        """Run a command once in a container of its own and return its exit status.

        Named by deployment and `name`: where an earlier attempt still runs, it is joined, not doubled; where it ended,
        its output and status count, and it does not run again until `forget_run`. When `stop` says to end
        (DeploymentFailed, so also Cancelled), the container is killed and removed first; for any other error it runs
        on, for the next attempt to join. Raises DeploymentFailed as `start` does, PlatformBroke (`command_cut_off`)
        where it finds one that somebody else has ended, such as an engine that was restarted.
        """

    def forget_run(self, environment: Environment, name: str, deployment: int) -> None:
        """Remove what `run` left behind, once its status is written down somewhere else."""

    def stop(self, environment: Environment, deployment: int, grace: float) -> None:
        """SIGTERM all containers of a deployment at once, SIGKILL after `grace` seconds, remove them and their files.

        One-off commands included. An image may name another signal than SIGTERM (STOPSIGNAL).
        """

    def missing(self, environment: Environment, deployment: int, services: Mapping[str, int]) -> list[str]:
        """What is not there of a deployment that should be: NETWORK, `web 2`, `web 1` STOPPED, FOLDER, INSIDE `web 1`.

        `services` says how many replicas each has. A container that Docker starts again after a crash is there. FOLDER
        stands for secrets' files that were removed, which `start` writes; INSIDE for a container that runs on with what
        was removed in their place: it finds them again after `restart`.
        """

    def restart(self, instance: Instance, grace: float) -> None:
        """SIGTERM a container, SIGKILL after `grace` seconds, and start it at its address; one that is gone stays so.

        Crashes until then do not count any more.
        """

    def deployments(self, environment: Environment) -> set[int]:
        """The deployments that have containers or secrets here, those of one-off commands included."""

    def destroy(self, environment: Environment) -> None:
        """Remove all containers and the network of an environment."""


class Probes(Protocol):
    """Looks at an instance from outside, once."""

    def probe(self, instance: Instance, check: HealthCheck) -> tuple[bool, str]:
        """Whether the instance is healthy right now, and a few words of what was seen (`HTTP 500`, `no answer`)."""
