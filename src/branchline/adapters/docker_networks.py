"""Networks of environments: one bridge each, with addresses of its own."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from docker.errors import APIError
from docker.types import IPAMConfig, IPAMPool

from branchline.adapters.docker_engine import DockerEngine, explanation
from branchline.adapters.docker_names import find, labels_of_environment, network_name
from branchline.domain.environment import Environment
from branchline.domain.errors import PlatformBroke
from branchline.layout import Layout

_ATTEMPTS = 10
_PAUSE_SECONDS = 0.2
_DYNAMIC_PREFIX = 28
_REMOVAL_SECONDS = 10
_CHOICE = 64


@dataclass(frozen=True)
class Network:
    """An environment's network. Its last /28 is Docker's, for one-off commands; we give out the rest ourselves."""

    id: str
    name: str
    subnet: IPv4Network

    @property
    def dynamic(self) -> IPv4Network:
        """Where Docker picks addresses by itself, which then never meet those that services keep."""
        return list(self.subnet.subnets(new_prefix=_DYNAMIC_PREFIX))[-1]

    def fixed(self) -> Iterator[str]:
        """The addresses for services, lowest first; the first of all is the gateway's."""
        return (str(address) for address in list(self.subnet)[2:] if address not in self.dynamic)


class Networks:
    """Makes, finds and removes the networks of one platform."""

    def __init__(self, engine: DockerEngine, layout: Layout) -> None:
        self._engine = engine
        self._layout = layout

    def ensure(self, environment: Environment) -> Network:
        """The environment's network, made where it is missing.

        An explicit subnet per environment, since Docker's own pools end at some thirty networks. Slot 0 stands for
        any subnet that is free.
        """
        said = ""
        for _ in range(_ATTEMPTS):
            if found := self._find(environment):
                if environment.slot == 0 or found.subnet == self._layout.network(environment.slot):
                    return found
                self._replace(found, environment)
            try:
                self._create(environment, self._choose(environment))
            except APIError as error:
                said = explanation(error)
                # The addresses, the name, or only the gateway are taken.
                if error.status_code not in {403, 409} and "already in use" not in said:
                    raise
                time.sleep(_PAUSE_SECONDS)  # somebody who makes the same network now has the addresses before the name
        strangers = ", ".join(sorted(self._neighbours(environment)))
        raise PlatformBroke(
            f"The network {self._name(environment)} cannot be made: {said}",
            code="addresses_taken",
            hint=f"In the way: {strangers or 'unknown'}. Remove it with `docker network rm` if nobody needs it.",
        )

    def exists(self, environment: Environment) -> bool:
        """Whether the environment's network is there."""
        return self._find(environment) is not None

    def addresses_in_use(self, network: Network) -> set[str]:
        """Addresses of whatever runs in the network now, also of what is not ours."""
        attached = self._engine.client.inspect_network(network.id)["Containers"] or {}
        return {endpoint["IPv4Address"].partition("/")[0] for endpoint in attached.values()}

    def remove(self, environment: Environment) -> None:
        """Remove the network; strangers that somebody attached to it by hand are detached."""
        client = self._engine.client
        limit = time.monotonic() + _REMOVAL_SECONDS
        while found := self._find(environment):
            try:
                for container in client.inspect_network(found.id)["Containers"] or {}:
                    client.disconnect_container_from_network(container, found.id, force=True)
                client.remove_network(found.id)
            except APIError as error:
                # 404: somebody else was quicker. 403: a container that is just being removed has not let go yet.
                if error.status_code not in {403, 404} or time.monotonic() > limit:
                    raise
                time.sleep(0.05)

    def _name(self, environment: Environment) -> str:
        return network_name(self._layout.instance, environment)

    def _find(self, environment: Environment) -> Network | None:
        name = self._name(environment)
        # Docker's filter matches parts of names too.
        found = [one for one in self._engine.client.networks(names=[name]) if one["Name"] == name]
        if not found:
            return None
        network = min(found, key=lambda one: str(one["Created"]))
        expected = labels_of_environment(self._layout.instance, environment)
        if any((network["Labels"] or {}).get(key) != value for key, value in expected.items()):
            raise PlatformBroke(
                f"The Docker network {name} exists, but it is not that of {environment.name} of {environment.project}.",
                code="name_taken",
                hint="Remove it, or rename the environment: two of them would share a name.",
            )
        return Network(network["Id"], name, IPv4Network(_subnets(network)[0]))

    def _create(self, environment: Environment, subnet: IPv4Network) -> None:
        network = Network("", self._name(environment), subnet)
        pool = IPAMPool(subnet=str(subnet), gateway=str(subnet[1]), iprange=str(network.dynamic))
        self._engine.client.create_network(
            network.name,
            driver="bridge",
            ipam=IPAMConfig(pool_configs=[pool]),
            check_duplicate=True,
            labels=labels_of_environment(self._layout.instance, environment),
        )

    def _choose(self, environment: Environment) -> IPv4Network:
        if environment.slot:
            return self._layout.network(environment.slot)
        taken = [IPv4Network(subnet) for network in self._engine.client.networks() for subnet in _subnets(network)]
        size = self._layout.network(0).num_addresses
        slots = range(1, self._layout.subnet.num_addresses // size)
        # Near the top, since environments count from the bottom; but not all who ask now for the same one.
        free = [slot for slot in reversed(slots) if not any(self._layout.network(slot).overlaps(one) for one in taken)]
        if free:
            return self._layout.network(random.choice(free[:_CHOICE]))  # noqa: S311 nothing secret
        raise PlatformBroke(
            f"No addresses are left in {self._layout.subnet}.",
            code="no_addresses",
            hint="Remove environments that nobody needs.",
        )

    def _neighbours(self, environment: Environment) -> Iterator[str]:
        """Names of the Docker networks whose addresses are meant for the environment."""
        meant = self._layout.network(environment.slot)
        for network in self._engine.client.networks():
            if any(IPv4Network(subnet).overlaps(meant) for subnet in _subnets(network)):
                yield str(network["Name"])

    def _replace(self, network: Network, environment: Environment) -> None:
        """Make room where an environment of the same name had another slot before, and left its network behind."""
        if find(self._engine, self._layout.instance, environment):
            raise PlatformBroke(
                f"The network {network.name} has the addresses {network.subnet}, "
                f"but {self._layout.network(environment.slot)} are meant for it.",
                code="network_changed",
                hint="Containers still use it: destroy the environment, then deploy again.",
            )
        self.remove(environment)


def _subnets(network: dict[str, Any]) -> Sequence[str]:
    pools = network["IPAM"]["Config"] or []
    return [pool["Subnet"] for pool in pools if "." in pool.get("Subnet", "")]
