"""A fake of Proxy: keeps routes in memory and says where a request would go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from branchline.domain.deployment import Fence
from branchline.domain.environment import Environment
from branchline.domain.errors import Conflict, DeploymentFailed, TakenOver
from branchline.ports import Route, Traffic


@dataclass(frozen=True)
class Switched:
    """What an environment's traffic goes to."""

    hostnames: tuple[str, ...]
    routes: tuple[Route, ...]


class FakeProxy:
    """`live` is what is switched now, `history` every change; set `busy[target]` and call `answer` to play traffic."""

    def __init__(self) -> None:
        self.live: dict[str, Switched] = {}
        self.history: list[tuple[str, Switched]] = []
        self.fences: dict[str, Fence] = {}
        self.busy: Counter[str] = Counter()
        self._answers: list[tuple[str, int]] = []

    def switch(
        self, environment: Environment, hostnames: Sequence[str], routes: Sequence[Route], fence: Fence | None = None
    ) -> None:
        wanted = Switched(tuple(hostnames), tuple(routes))
        if routes:
            self._check(environment.key, wanted)
        last = self.fences.get(environment.key, Fence(0, 0))
        if fence is not None and fence < last:
            raise TakenOver("Somebody later has changed the routes.")
        self.fences[environment.key] = fence or last
        if self.live.get(environment.key, Switched((), ())) != wanted:
            self.history.append((environment.key, wanted))
        if routes:
            self.live[environment.key] = wanted
        else:
            self.live.pop(environment.key, None)

    def routes(self, environment: Environment) -> list[Route]:
        live = self.live.get(environment.key)
        return sorted(live.routes, key=lambda route: route.prefix) if live else []

    def leads(self, environment: Environment, hostnames: Sequence[str], routes: Sequence[Route]) -> bool:
        live = self.live.get(environment.key)
        if live is None:
            return not routes
        return (sorted(live.hostnames), sorted(live.routes, key=repr)) == (sorted(hostnames), sorted(routes, key=repr))

    def in_flight(self, targets: Sequence[str]) -> int:
        return sum(self.busy[target] for target in targets)

    def mark(self) -> int:
        return len(self._answers)

    def traffic(self, hostnames: Sequence[str], since: int) -> Traffic:
        statuses = [status for hostname, status in self._answers[since:] if hostname in hostnames]
        return Traffic(len(statuses), sum(status >= 500 for status in statuses))

    def url(self, hostname: str) -> str:
        return f"http://{hostname}:8080"

    def answer(self, hostname: str, status: int = 200, times: int = 1) -> None:
        """Play requests for a hostname that were answered with this status."""
        self._answers.extend([(hostname, status)] * times)

    def targets(self, hostname: str, path: str = "/") -> tuple[str, ...]:
        """The targets that a request would go to one of; none where nobody answers."""
        for live in self.live.values():
            if hostname in live.hostnames:
                fitting = [route for route in live.routes if f"{path}/".startswith(f"{route.prefix.rstrip('/')}/")]
                return max(fitting, key=lambda route: len(route.prefix)).targets if fitting else ()
        return ()

    def _check(self, key: str, wanted: Switched) -> None:
        if len(wanted.routes) > 8 or any(len(route.targets) > 8 for route in wanted.routes):
            raise DeploymentFailed("An environment can have 8 routes with 8 targets each.", code="too_many_routes")
        if any(route.prefix.count("/") > 8 or len(route.prefix) > 255 for route in wanted.routes):
            raise DeploymentFailed("The route has more than 8 segments or 255 characters.", code="route_too_deep")
        for other, live in self.live.items():
            if taken := set(live.hostnames) & set(wanted.hostnames) if other != key else set():
                raise Conflict(f"The hostname {min(taken)} belongs to {other}.", code="hostname_taken")
