"""Containers on Docker: an environment's services and one-off commands, in a network of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker.errors import NotFound

from branchline.adapters import docker_exec
from branchline.adapters import docker_names as names
from branchline.adapters.docker_create import Maker, NewContainer
from branchline.adapters.docker_engine import DockerEngine, in_our_words
from branchline.adapters.docker_networks import Networks
from branchline.adapters.docker_remove import remove_all, remove_container, stop_all
from branchline.adapters.docker_run import OneOff
from branchline.adapters.docker_start import Starter
from branchline.adapters.lines import Lines
from branchline.adapters.secret_files import SecretFiles
from branchline.domain.config import Secret
from branchline.domain.environment import Environment
from branchline.domain.errors import PlatformBroke
from branchline.domain.manifest import Limits
from branchline.layout import Layout
from branchline.ports import (
    FOLDER,
    INSIDE,
    NETWORK,
    STOPPED,
    Instance,
    InstanceState,
    Interrupt,
    Log,
    ServiceSpec,
)

_THERE = {"running", "restarting", "paused"}


class DockerContainers:
    """Keeps nothing in memory: Docker is asked each time, and labels tell what is whose.

    No port is published, since that costs a quarter of a second and a free port per container: proxy and probes reach
    the containers' own addresses. We choose these and write them down in a label, so that they stay the same when
    Docker or the machine starts anew.
    """

    def __init__(self, docker_host: str | None, layout: Layout) -> None:
        self._engine = DockerEngine(docker_host)
        self._layout = layout
        self._networks = Networks(self._engine, layout)
        maker = Maker(self._engine)
        self._files = SecretFiles(layout.instance)
        self._starter = Starter(self._engine, maker, self._networks, layout.instance)
        self._one_off = OneOff(self._engine, maker)

    @in_our_words
    def ensure_network(self, environment: Environment) -> None:
        """Make the environment's network; raises PlatformBroke `addresses_taken` where its subnet is used."""
        self._networks.ensure(environment)

    @in_our_words
    def start(
        self, environment: Environment, deployment: int, services: Sequence[ServiceSpec], stop: Interrupt
    ) -> list[Instance]:
        """Start what is not running yet, several at once. A container that crashes at once counts as started.

        Raises DeploymentFailed (`command_not_found`, `command_not_executable`, `bad_image`, `too_many_containers`)
        where one can never start; those of the deployment that were not there before are removed then.
        """
        secrets = {
            one.name: self._written(environment, deployment, f"service-{one.name}", one.files) for one in services
        }
        self._starter.start(environment, deployment, services, stop, secrets)
        return self.instances(environment, deployment)

    @in_our_words
    def instances(self, environment: Environment, deployment: int | None = None) -> list[Instance]:
        """The service containers of a deployment or of all, by deployment, service and replica."""
        found = [names.instance_of(one) for one in self._find(environment, deployment, names.KIND_SERVICE)]
        return sorted(found, key=lambda one: (one.deployment, one.service, one.replica))

    @in_our_words
    def state(self, instance: Instance) -> InstanceState:
        """What an instance is doing now. While it waits to be started again after a crash, it is not running."""
        try:
            about = self._engine.client.inspect_container(instance.name)
        except NotFound:
            return InstanceState(exists=False)
        state = about["State"]
        running = bool(state["Running"] and not state["Restarting"])
        never_ran = state["Status"] == "created"
        return InstanceState(
            exists=True,
            running=running,
            exit_code=None if running or never_ran else int(state["ExitCode"]),
            out_of_memory=bool(state["OOMKilled"]),
            restarts=int(about["RestartCount"]),
        )

    @in_our_words
    def tail(self, instance: Instance, lines: int = 50) -> list[str]:
        """The last lines of what it wrote, both streams in their order; none where the container is gone."""
        try:
            kept = self._engine.client.logs(instance.name, stdout=True, stderr=True, tail=max(lines, 0))
        except NotFound:
            return []
        splitter = Lines()
        text = [*splitter.feed(kept), *splitter.close()]
        return text[-lines:] if lines > 0 else []

    @in_our_words
    def probe_command(self, instance: Instance, command: Sequence[str], timeout: float) -> tuple[bool, str]:
        """Run a command in the container; where it fails, the words say how: `exited with 1: …`, `no answer …`."""
        return docker_exec.probe(self._engine, instance.name, command, timeout)

    @in_our_words
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
        """Run a command once. One that ended while no runner lived is not run again: its output and status count.

        Raises DeploymentFailed as `start` does.
        """
        instance = self._layout.instance
        new = NewContainer(
            what=f"The command {name}",
            name=names.run_name(instance, environment, deployment, name),
            image=image,
            command=tuple(command),
            variables=variables,
            limits=limits,
            labels=names.labels_of_environment(instance, environment) | names.labels_of_run(deployment, name),
            network=self._networks.ensure(environment).name,
            secrets=self._written(environment, deployment, f"command-{name}", files),
        )
        return self._one_off.run(new, log, stop)

    @in_our_words
    def forget_run(self, environment: Environment, name: str, deployment: int) -> None:
        """Remove the container of a command that was run once."""
        remove_container(self._engine, names.run_name(self._layout.instance, environment, deployment, name))
        self._files.remove(environment, deployment, f"command-{name}")

    @in_our_words
    def stop(self, environment: Environment, deployment: int, grace: float) -> None:
        """Stop and remove all containers of a deployment at once, one-off commands included."""
        stop_all(self._engine, self._find(environment, deployment), grace)
        self._files.remove(environment, deployment)

    @in_our_words
    def missing(self, environment: Environment, deployment: int, services: Mapping[str, int]) -> list[str]:
        """What is not there of a deployment that should be; see ports.Containers."""
        containers = self._find(environment, deployment, names.KIND_SERVICE)
        found = {
            (one["Labels"][names.SERVICE], int(one["Labels"][names.REPLICA])): str(one["State"]) for one in containers
        }
        lacks = [] if self._networks.exists(environment) else [NETWORK]
        for service, replicas in services.items():
            for replica in range(1, replicas + 1):
                state = found.get((service, replica), "")
                if state not in _THERE:
                    lacks.append(f"{service} {replica}" + (STOPPED if state else ""))
        return lacks + self._missing_secrets(containers)

    @in_our_words
    def restart(self, instance: Instance, grace: float) -> None:
        """End a container and start it at its address, with its folders mounted anew; see ports.Containers."""
        with suppress(NotFound):
            self._engine.client.restart(instance.name, timeout=math.ceil(grace))

    @in_our_words
    def deployments(self, environment: Environment) -> set[int]:
        """The deployments that have containers or secrets here, those of one-off commands included."""
        with_containers = {int(one["Labels"][names.DEPLOYMENT]) for one in self._find(environment)}
        return with_containers | self._files.deployments(environment)

    @in_our_words
    def destroy(self, environment: Environment) -> None:
        """Remove whatever the environment has in Docker."""
        remove_all(self._engine, self._find(environment))
        self._files.remove_all(environment)
        self._networks.remove(environment)

    def _written(
        self, environment: Environment, deployment: int, user: str, files: Mapping[str, Secret] | None
    ) -> Path | None:
        """The folder with somebody's secrets, which must be there whenever one of their containers starts.

        Raises PlatformBroke (`engine_elsewhere`) where Docker could not mount it.
        """
        if files is None:
            return None
        if not self._engine.local:
            raise PlatformBroke(
                "Secrets as files need a Docker engine on this machine.",
                code="engine_elsewhere",
                hint="Take `secrets: files` out of the manifest, or run Branchline where the engine runs.",
            )
        return self._files.write(environment, deployment, user, files)

    def _missing_secrets(self, containers: Sequence[Mapping[str, Any]]) -> list[str]:
        """Whether secrets' files are gone, and which of the containers look into a folder that was removed."""
        whole, lacks = True, list[str]()
        for one in containers:
            folder = names.secrets_folder(one)
            if folder is None or not self._files.holds(folder):
                continue
            whole = whole and self._files.whole(folder)
            if (process := self._process(one["Id"])) and self._files.lost_to(folder, process):
                lacks.append(f"{INSIDE}{one['Labels'][names.SERVICE]} {one['Labels'][names.REPLICA]}")
        return [*([] if whole else [FOLDER]), *sorted(lacks)]

    def _process(self, container: str) -> int:
        """The first process of a container; 0 where it does not run."""
        try:
            return int(self._engine.client.inspect_container(container)["State"]["Pid"])
        except NotFound:
            return 0

    def _find(
        self, environment: Environment, deployment: int | None = None, kind: str | None = None
    ) -> list[dict[str, Any]]:
        return names.find(self._engine, self._layout.instance, environment, deployment, kind)
