"""Where requests go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from branchline.domain.deployment import Fence
from branchline.domain.environment import Environment


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

    def switch(
        self, environment: Environment, hostnames: Sequence[str], routes: Sequence[Route], fence: Fence | None = None
    ) -> None:
        """Send all traffic of these hostnames to these routes, in one atomic move; no request is lost.

        With a fence, every later call with a lesser one raises TakenOver, and changes nothing.

        No routes at all removes the environment from the proxy. Hostnames that it had before and are not named any
        more stop answering. Raises DeploymentFailed (`too_many_routes`) above 8 prefixes or 8 targets a prefix.
        """

    def routes(self, environment: Environment) -> list[Route]:
        """What the environment's traffic goes to now; empty where nothing was ever switched."""

    def leads(self, environment: Environment, hostnames: Sequence[str], routes: Sequence[Route]) -> bool:
        """Whether requests for these hostnames go to these routes now: nobody changed or damaged what `switch` did."""

    def in_flight(self, targets: Sequence[str]) -> int:
        """Requests that these targets have not finished, WebSockets and event streams included."""

    def mark(self) -> int:
        """A point in the proxy's record of requests, for `traffic`."""

    def traffic(self, hostnames: Sequence[str], since: int) -> Traffic:
        """What was answered for these hostnames since a mark."""

    def url(self, hostname: str) -> str:
        """The address that people open."""
