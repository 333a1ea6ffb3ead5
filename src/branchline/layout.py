"""Where things lie under the home, and what the embedded servers chose at their first start.

`stack.json` is written once, by the first `branchline up`, and read by every process of the platform: the instance's
name, its ports and its range of addresses must not change beneath running containers. Secrets are files under `keys/`,
each 0600, and never in `stack.json`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from branchline.domain.config import Secret
from branchline.domain.environment import Tier
from branchline.domain.errors import PlatformBroke

ENVIRONMENT_PREFIX = 26
"""Every environment gets a /26: 61 addresses for containers, and 1023 environments to a /16."""


@dataclass(frozen=True)
class Ports:
    """TCP ports on this machine. All below 32768, where outgoing connections do not take them."""

    server: int
    proxy: int
    registry: int
    openbao: int
    openbao_cluster: int
    postgres_platform: int
    postgres_nonprod: int
    postgres_production: int


@dataclass(frozen=True)
class Layout:
    """The home of one platform. `instance` prefixes and labels whatever it makes in Docker."""

    home: Path
    instance: str
    subnet: IPv4Network
    ports: Ports

    @classmethod
    def load(cls, home: Path) -> Layout:
        """Read `stack.json`; raises PlatformBroke (`not_set_up`) where `branchline up` never ran."""
        try:
            stored = json.loads((home / "stack.json").read_text())
        except FileNotFoundError:
            raise PlatformBroke(
                f"There is no platform in {home}.",
                code="not_set_up",
                hint="Start one with `branchline up`, or name another folder with BRANCHLINE_HOME.",
            ) from None
        return cls(home, stored["instance"], IPv4Network(stored["subnet"]), Ports(**stored["ports"]))

    def save(self) -> None:
        """Write `stack.json` in one move."""
        text = json.dumps(
            {"instance": self.instance, "subnet": str(self.subnet), "ports": asdict(self.ports)}, indent=2
        )
        partial = self.home / "stack.json.partial"
        partial.write_text(text + "\n")
        partial.chmod(0o644)  # the server reads it, as an account of its own
        partial.replace(self.home / "stack.json")

    @property
    def gateway(self) -> IPv4Address:
        """The address of this machine that every environment's containers can reach: databases listen here."""
        return self.network(0)[1]

    def network(self, slot: int) -> IPv4Network:
        """The addresses of one environment. Slot 0 is the platform's own bridge; environments count from 1."""
        size = 2 ** (32 - ENVIRONMENT_PREFIX)
        first = int(self.subnet.network_address) + slot * size
        if slot < 0 or first + size - 1 > int(self.subnet.broadcast_address):
            raise PlatformBroke(
                f"There is no room for environment number {slot} in {self.subnet}.",
                code="no_addresses",
                hint="Remove environments that nobody needs.",
            )
        return IPv4Network((first, ENVIRONMENT_PREFIX))

    def key(self, name: str) -> Secret:
        """A secret file under `keys/`, without the newline at its end."""
        path = self.home / "keys" / name
        try:
            return Secret(path.read_text().strip())
        except OSError as error:
            raise PlatformBroke(
                f"The key {name} cannot be read: {error.strerror}.",
                code="key_unreadable",
                hint=f"Run as the user that owns {path}, or start the platform once with `branchline up`.",
            ) from None

    @property
    def routes(self) -> Path:
        """Where the proxy finds where to send requests."""
        return self.home / "caddy" / "routes"

    @property
    def access_log(self) -> Path:
        """The proxy's record of requests, a JSON object a line."""
        return self.home / "log" / "caddy" / "access.log"

    @property
    def caddy_admin(self) -> Path:
        """The Unix socket of Caddy's admin API."""
        return self.home / "run" / "caddy" / "admin.sock"

    @property
    def run(self) -> Path:
        """Sockets and process files; emptied by nobody but the processes that own them."""
        return self.home / "run"

    @property
    def server_home(self) -> Path:
        """Where the server's git finds its settings and its ssh keys, where the server has an account of its own."""
        return self.home / "server"

    @property
    def first_token(self) -> Path:
        """Where the server leaves the first admin's token for the supervisor, which alone may write to the home."""
        return self.run / "server" / "first.token"

    @property
    def log(self) -> Path:
        """Logs of the platform's own processes."""
        return self.home / "log"

    def work(self, tier: Tier) -> Path:
        """Where commits are checked out while they are being deployed."""
        return self.home / "work" / tier

    def git(self, reader: str) -> Path:
        """Bare mirrors of projects, one folder for the server and one for the runners of each tier."""
        return self.home / "git" / reader
