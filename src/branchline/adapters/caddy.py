"""The proxy port on Caddy: switches by renaming a link in the routes folder, counts by admin API and access log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx

from branchline.adapters.caddy_config import MAX_DEPTH, MAX_TARGETS
from branchline.adapters.caddy_log import AccessLog
from branchline.adapters.caddy_routes import RoutesFolder
from branchline.domain.deployment import Fence
from branchline.domain.environment import Environment
from branchline.domain.errors import BadInput, DeploymentFailed, Unreachable
from branchline.domain.manifest import MAX_ROUTES
from branchline.layout import Layout
from branchline.ports import Route, Traffic
from branchline.settings import Settings

MAX_NAME_BYTES = 255
"""The length of a file's name, which the targets of a prefix must fit into."""

_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?")
_TARGET = re.compile(r"[A-Za-z0-9._:\[\]-]+:[0-9]+")


class CaddyProxy:
    """Any number of these, in any processes, may share the routes folder of one Caddy."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self._folder = RoutesFolder(layout.routes)
        self._log = AccessLog(layout.access_log)
        self._admin = _admin_client(settings.caddy_admin or f"unix/{layout.caddy_admin}")
        listens_on = urlsplit(f"//{settings.proxy_listen}").port if settings.proxy_listen else layout.ports.proxy
        self._port = settings.public_port or listens_on

    def switch(
        self, environment: Environment, hostnames: Sequence[str], routes: Sequence[Route], fence: Fence | None = None
    ) -> None:
        """Send all traffic of these hostnames to these routes, in one atomic move; no request is lost.

        The longest prefix wins. Raises Conflict (`hostname_taken`) where another environment has one of the
        hostnames, TakenOver where somebody later than `fence` has changed its routes, DeploymentFailed
        (`too_many_routes`, `route_too_deep`) for more than the proxy can carry, BadInput (`bad_hostname`) for what
        cannot be a hostname.
        """
        if not routes:
            self._folder.remove(environment.key, fence)
            return
        self._folder.put(environment.key, [_checked(hostname) for hostname in hostnames], _plan(routes), fence)

    def routes(self, environment: Environment) -> list[Route]:
        """What the environment's traffic goes to now, sorted by prefix."""
        return [Route(prefix, tuple(targets)) for prefix, targets in sorted(self._folder.read(environment.key).items())]

    def leads(self, environment: Environment, hostnames: Sequence[str], routes: Sequence[Route]) -> bool:
        """Whether requests for these hostnames go to these routes now."""
        if not routes:
            return not self._folder.read(environment.key)
        return self._folder.whole(environment.key, [_checked(hostname) for hostname in hostnames], _plan(routes))

    def in_flight(self, targets: Sequence[str]) -> int:
        """Requests that these targets have not finished, WebSockets and event streams included."""
        try:
            answer = self._admin.get("/reverse_proxy/upstreams")
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise Unreachable(
                f"The proxy's admin API does not answer: {error or type(error).__name__}.",
                code="proxy_unreachable",
                hint="`branchline status` shows whether Caddy runs.",
            ) from error
        return sum(upstream["num_requests"] for upstream in answer.json() if upstream["address"] in targets)

    def mark(self) -> int:
        """This moment, in microseconds."""
        return self._log.mark()

    def traffic(self, hostnames: Sequence[str], since: int) -> Traffic:
        """What began after the mark and was answered for these hostnames."""
        return self._log.count(hostnames, since)

    def url(self, hostname: str) -> str:
        """The address that people open."""
        return f"http://{hostname}" if self._port == 80 else f"http://{hostname}:{self._port}"


def _plan(routes: Sequence[Route]) -> dict[str, list[str]]:
    """The targets of each prefix, if Caddy's document can carry them."""
    plan: dict[str, list[str]] = {}
    for route in routes:
        plan.setdefault(route.prefix, []).extend(route.targets)
    if len(plan) > MAX_ROUTES or any(len(targets) > MAX_TARGETS for targets in plan.values()):
        raise DeploymentFailed(
            f"An environment can have {MAX_ROUTES} routes with {MAX_TARGETS} targets each.",
            code="too_many_routes",
            hint="Use fewer routes or replicas.",
        )
    for prefix, targets in plan.items():
        segments = prefix.strip("/").split("/")
        if len(segments) > MAX_DEPTH or len(prefix) > MAX_NAME_BYTES:
            raise DeploymentFailed(
                f"The route {prefix[:60]} has more than {MAX_DEPTH} segments or {MAX_NAME_BYTES} characters.",
                code="route_too_deep",
                hint="Use a shorter prefix: everything beneath it is sent the same way.",
            )
        if len(",".join(targets)) >= MAX_NAME_BYTES:
            raise DeploymentFailed(
                f"The addresses of the {len(targets)} targets of {prefix} are too long together.",
                code="too_many_routes",
                hint="Use fewer replicas.",
            )
        if not targets or not all(_TARGET.fullmatch(target) for target in targets):
            raise ValueError(f"the route {prefix} needs targets like 10.0.0.1:8000, not {targets}")
    return plan


def _checked(hostname: str) -> str:
    """The hostname as the folder names it: nothing but a hostname may name a file there."""
    if not _HOSTNAME.fullmatch(hostname.lower()):
        raise BadInput(
            f"{hostname[:80]!r} cannot be a hostname.",
            code="bad_hostname",
            hint="Use letters, digits, '-' and '.': look at the manifest's domains and at BRANCHLINE_DOMAIN.",
        )
    return hostname.lower()


def _admin_client(address: str) -> httpx.Client:
    """A client for Caddy's admin API at `unix//path`, `host:port` or a URL."""
    if address.startswith("unix/"):
        transport = httpx.HTTPTransport(uds=address.removeprefix("unix/"), verify=False)
        return httpx.Client(transport=transport, base_url="http://localhost", timeout=5.0, trust_env=False)
    return httpx.Client(base_url=address if "://" in address else f"http://{address}", timeout=5.0, trust_env=False)
