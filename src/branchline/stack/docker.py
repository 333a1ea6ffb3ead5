"""Docker: the engine, if nobody runs one, and the platform's own bridge, whose gateway containers can reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool

from branchline.domain.errors import PlatformBroke
from branchline.layout import Layout
from branchline.stack import binaries
from branchline.stack.part import NotReady, Part, plain_environment
from branchline.stack.process import Command, Identity

INSTANCE_LABEL = "branchline.instance"
SOCKET = Path("/var/run/docker.sock")
PID_FILE = Path("/var/run/docker.pid")
BROKEN = (DockerException, requests.RequestException)


@contextmanager
def engine(endpoint: str = "", limit: int = 5) -> Iterator[docker.DockerClient]:
    """A client of the engine at this endpoint (default: DOCKER_HOST, else the local socket).

    Raises NotReady where none answers.
    """
    try:
        made = docker.DockerClient(base_url=endpoint, timeout=limit) if endpoint else docker.from_env(timeout=limit)
        made.ping()
    except BROKEN as error:
        raise NotReady(f"no Docker engine answers ({str(error)[:120]})") from None
    try:
        yield made
    finally:
        made.close()


class Engine(Part):
    """The Docker engine. One that answers is used and left alone; otherwise, as root, we run our own."""

    has_process = False  # somebody else's serves as well
    owns_children = False  # they are the containers
    stop_limit = 60.0  # it stops every container first
    start_limit = 60.0

    def __init__(self, endpoint: str = "", name: str = "docker") -> None:
        self.name = name
        self._endpoint = endpoint or os.environ.get("DOCKER_HOST", "")
        self._may_run = not self._endpoint and os.geteuid() == 0

    @property
    def endpoint(self) -> str:
        return self._endpoint or f"unix://{SOCKET}"

    @property
    def answers(self) -> bool:
        """Whether an engine is there now."""
        try:
            self.check()
        except NotReady:
            return False
        return True

    def prepare(self) -> None:
        if self.answers or not self._may_run:
            return
        self._forget_the_dead()

    def command(self) -> Command | None:
        if self.answers:
            return None
        if not self._may_run:
            raise PlatformBroke(
                f"No Docker engine answers at {self.endpoint}.",
                code="no_docker",
                hint="Start it, or join its group; as root `branchline up` starts one where there is none.",
            )
        # Its own cgroup driver, data and bridge are the defaults: it is the machine's engine, not a private one.
        return Command((str(binaries.engine()),), folder=Path("/"), environment=plain_environment())

    def check(self) -> None:
        with engine(self._endpoint, 2):
            pass

    def occupied(self) -> str:
        try:
            with engine(self._endpoint) as connection:
                running = len(connection.containers.list())
        except NotReady:
            return ""
        return f"{running} containers run on it" if running > 1 else "a container runs on it" if running else ""

    @staticmethod
    def _forget_the_dead() -> None:
        """Remove the pid file of an engine that is gone: it refuses to start while any process has that number."""
        try:
            pid = int(PID_FILE.read_text())
        except (FileNotFoundError, ValueError):
            return
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            name = ""
        if Identity.of(pid) is None or name != "dockerd":
            PID_FILE.unlink(missing_ok=True)


class Bridge(Part):
    """The platform's own network: nothing runs in it, but its gateway is where databases listen for containers."""

    name = "bridge"
    needs = ("docker",)
    has_process = False

    def __init__(self, layout: Layout, endpoint: str = "") -> None:
        self._name = layout.instance
        self._subnet = layout.network(0)
        self._gateway = str(layout.gateway)
        self._endpoint = endpoint

    @property
    def endpoint(self) -> str:
        return f"{self._gateway} in {self._subnet}"

    def prepare(self) -> None:
        with engine(self._endpoint, 20) as connection:
            found = find_network(connection, self._name)
            if found and _addresses(found) == [self._subnet]:
                return
            try:
                if found:  # of a platform that was here before us, and whose home is gone
                    found.remove()
                connection.networks.create(
                    self._name,
                    driver="bridge",
                    labels={INSTANCE_LABEL: self._name},
                    ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(self._subnet), gateway=self._gateway)]),
                    options={"com.docker.network.bridge.name": f"br-{self._name}"},
                    check_duplicate=True,
                )
            except APIError as error:
                raise PlatformBroke(
                    f"Docker did not make the platform's network: {error.explanation}.",
                    code="no_bridge",
                    hint=f"Does something else use {self._subnet}? See `ip route` and `docker network ls`.",
                ) from None

    def command(self) -> None:
        return None

    def check(self) -> None:
        with engine(self._endpoint, 2) as connection:
            network = find_network(connection, self._name)
        if network is None:
            raise NotReady(f"Docker has no network {self._name}")
        if _addresses(network) != [self._subnet]:
            raise NotReady(f"the network {self._name} has other addresses than {self._subnet}")

    def remove(self) -> None:
        """Remove the network; one that is gone is fine."""
        with engine(self._endpoint, 20) as connection:
            if network := find_network(connection, self._name):
                network.remove()


def find_network(connection: docker.DockerClient, name: str) -> Network | None:
    """The network of exactly this name."""
    try:
        return connection.networks.get(name)
    except NotFound:
        return None


def networks(endpoint: str = "") -> list[IPv4Network]:
    """The addresses that Docker's networks use; empty where no engine answers."""
    try:
        with engine(endpoint) as connection:
            found = connection.networks.list()
    except NotReady:
        return []
    return [subnet for network in found for subnet in _addresses(network)]


def _addresses(network: Network) -> list[IPv4Network]:
    pools = (network.attrs.get("IPAM") or {}).get("Config") or []
    return [IPv4Network(pool["Subnet"], strict=False) for pool in pools if "." in pool.get("Subnet", "")]
