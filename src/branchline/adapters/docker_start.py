"""Starting a deployment's containers: who gets which address, and all of them up at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound

from branchline.adapters import docker_names as names
from branchline.adapters.docker_create import CannotRun, Maker, NewContainer
from branchline.adapters.docker_engine import DockerEngine
from branchline.adapters.docker_networks import Network, Networks
from branchline.adapters.docker_remove import remove_all, remove_container
from branchline.domain.environment import Environment
from branchline.domain.errors import DeploymentFailed, PlatformBroke
from branchline.ports import Instance, Interrupt, ServiceSpec

_STARTS_AT_ONCE = 4
"""A start is mostly the kernel's work: more at once than this were not quicker on two cores."""

_ATTEMPTS = 5

_HALF_STARTED = re.compile(r"task \w+.* already exists|container with (?:given )?id.* exists", re.IGNORECASE)
"""An engine that was killed while it started a container cannot start that one any more."""


class _AddressTakenError(Exception):
    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address


class Starter:
    """Starts the services of deployments."""

    def __init__(self, engine: DockerEngine, maker: Maker, networks: Networks, instance: str) -> None:
        self._engine = engine
        self._maker = maker
        self._networks = networks
        self._instance = instance

    def start(
        self,
        environment: Environment,
        deployment: int,
        services: Sequence[ServiceSpec],
        stop: Interrupt,
        secrets: Mapping[str, Path | None],
    ) -> None:
        """Start what is not running yet. `secrets` says which folder each service finds at its place."""
        network = self._networks.ensure(environment)
        avoid: set[str] = set()
        for _ in range(_ATTEMPTS):
            stop.check()
            existing = self._find(environment, deployment, names.KIND_SERVICE)
            plan = self._plan(environment, deployment, services, network, existing, avoid)
            plan = [replace(new, secrets=secrets[new.labels[names.SERVICE]]) for new in plan]
            try:
                return self._start_all(plan, existing, stop)
            except _AddressTakenError as taken:
                if existing:
                    raise PlatformBroke(
                        f"The address {taken.address} of {environment.name} of {environment.project} is taken.",
                        code="address_taken",
                        hint=f"Something else joined the network {network.name}: detach it, and deploy again.",
                    ) from None
                # Each container knows the addresses of all: one that moves means that all are made anew.
                remove_all(self._engine, self._find(environment, deployment))
                avoid.add(taken.address)
            except CannotRun:
                before = {one["Id"] for one in existing}  # they may well serve
                found = self._find(environment, deployment)
                remove_all(self._engine, [one for one in found if one["Id"] not in before])
                raise
        raise PlatformBroke(
            f"No free address was found in {network.subnet}.",
            code="address_taken",
            hint=f"Something else uses the network {network.name}: see `docker network inspect {network.name}`.",
        )

    def _find(
        self, environment: Environment, deployment: int | None = None, kind: str | None = None
    ) -> list[dict[str, Any]]:
        return names.find(self._engine, self._instance, environment, deployment, kind)

    def _plan(
        self,
        environment: Environment,
        deployment: int,
        services: Sequence[ServiceSpec],
        network: Network,
        existing: Sequence[Mapping[str, Any]],
        avoid: set[str],
    ) -> list[NewContainer]:
        """Every replica of every service, with the address that it has or shall have."""
        promised = self._promised(existing)
        taken = avoid | self._networks.addresses_in_use(network) | set(promised.values())
        taken |= {one["Labels"].get(names.ADDRESS, "") for one in self._find(environment)}
        free = (address for address in network.fixed() if address not in taken)
        instances: list[tuple[ServiceSpec, Instance]] = []
        for spec in services:
            for replica in range(1, spec.replicas + 1):
                address = promised.get((spec.name, replica)) or next(free, None)
                if address is None:
                    raise DeploymentFailed(
                        f"{environment.name} of {environment.project} has no addresses left for so many containers.",
                        code="too_many_containers",
                        hint="An environment has room for 46 containers, those of the release before included: "
                        "use fewer replicas.",
                    )
                name = names.service_name(self._instance, environment, deployment, spec.name, replica)
                instances.append((spec, Instance(name, spec.name, replica, deployment, address, spec.port)))
        # Names of services lead to containers of the same deployment only: a new web never talks to an old api.
        hosts = [f"{one.service}:{one.address}" for _, one in instances]
        of_environment = names.labels_of_environment(self._instance, environment)
        return [
            NewContainer(
                what=f"{one.service} {one.replica}",
                name=one.name,
                image=spec.image,
                command=spec.command,
                variables=spec.variables,
                limits=spec.limits,
                labels=of_environment | names.labels_of_service(one),
                network=network.name,
                address=one.address,
                hosts=hosts,
                keep_running=True,
            )
            for spec, one in instances
        ]

    def _promised(self, existing: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], str]:
        """The addresses that containers of an earlier, interrupted attempt were told of, by service and replica."""
        for one in existing:
            try:
                told = self._engine.client.inspect_container(one["Id"])["HostConfig"]["ExtraHosts"] or []
            except NotFound:
                continue
            promised: dict[tuple[str, int], str] = {}
            for host in told:
                service, _, address = host.partition(":")
                replica = 1 + sum(name == service for name, _ in promised)
                promised[service, replica] = address
            return promised
        return {}

    def _start_all(self, plan: Sequence[NewContainer], existing: Sequence[Mapping[str, Any]], stop: Interrupt) -> None:
        states = {one["Names"][0].lstrip("/"): str(one["State"]) for one in existing}
        folders = {one["Names"][0].lstrip("/"): names.secrets_folder(one) for one in existing}
        # Made when its secrets lay elsewhere, by a version before or in another memory: it is made anew.
        stale = {new.name for new in plan if folders.get(new.name, new.secrets) != new.secrets}
        with ThreadPoolExecutor(_STARTS_AT_ONCE, thread_name_prefix="start") as pool:
            starts = [
                pool.submit(self._start_one, new, "dead" if new.name in stale else states.get(new.name), stop)
                for new in plan
                if states.get(new.name) != "running"
            ]
            try:
                _await(starts, stop)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _start_one(self, new: NewContainer, state: str | None, stop: Interrupt) -> None:
        stop.check()  # in each thread: a process that was paused may wake up anywhere
        if state in {"dead", "removing"}:
            remove_container(self._engine, new.name)
            state = None
        if state is None:
            try:
                self._maker.create(new)
            except APIError as error:
                if error.status_code != 409:
                    raise
                self._check_same(new)
        try:
            self._start_or_remake(new)
        except APIError as error:
            if "address already in use" in str(error.explanation).lower():
                raise _AddressTakenError(new.address or "") from error
            self._maker.refuse(new, error)

    def _start_or_remake(self, new: NewContainer) -> None:
        try:
            self._engine.client.start(new.name)
        except APIError as error:
            if not _HALF_STARTED.search(str(error.explanation)):
                raise
            remove_container(self._engine, new.name)
            self._maker.create(new)
            self._engine.client.start(new.name)

    def _check_same(self, new: NewContainer) -> None:
        """Somebody made the container since we looked: it must be what we would have made."""
        labels = self._engine.client.inspect_container(new.name)["Config"]["Labels"] or {}
        if any(labels.get(key) != value for key, value in new.labels.items()):
            raise PlatformBroke(
                f"A container named {new.name} is there already, and it is not {new.what} of this deployment.",
                code="name_taken",
                hint=f"See `docker inspect {new.name}`; remove it if nobody needs it, and deploy again.",
            )


def _await(starts: Iterable[Future[None]], stop: Interrupt) -> None:
    pending = set(starts)
    while pending:
        done, pending = wait(pending, timeout=0.1, return_when=FIRST_EXCEPTION)
        for start in done:
            start.result()
        stop.check()
