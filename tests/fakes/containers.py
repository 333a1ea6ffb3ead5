"""Fake of Containers: environments with networks, services and one-off commands, all in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from branchline.domain.config import Secret
from branchline.domain.environment import Environment
from branchline.domain.errors import DeploymentFailed
from branchline.domain.manifest import Limits
from branchline.ports import FOLDER, INSIDE, NETWORK, Instance, InstanceState, Interrupt, Log, ServiceSpec

_FIXED_ADDRESSES = 46
Owner = tuple[str, str]


@dataclass
class Call:
    """What a program is given: its command, its variables, and ways to speak and to wait."""

    command: tuple[str, ...]
    variables: dict[str, str]
    say: Callable[[str], None]
    files: dict[str, str] = field(default_factory=dict)
    killed: threading.Event = field(default_factory=threading.Event)

    def sleep(self, seconds: float) -> None:
        """Wait, but not longer than the container lives."""
        self.killed.wait(seconds)


Program = Callable[[Call], int | None]
"""What a command does: its exit status, or None when it goes on until it is stopped."""


@dataclass
class FakeContainer:
    """One container; `output` is what it wrote."""

    instance: Instance
    owner: Owner
    spec: ServiceSpec
    state: InstanceState
    output: list[str] = field(default_factory=list)
    folder: object = None
    """That with its secrets, as it was when the container was started last."""


@dataclass
class _OneOff:
    owner: Owner
    deployment: int
    call: Call
    output: list[str]
    thread: threading.Thread | None = None
    status: int | None = None


class FakeContainers:
    """Runs nothing; commands do what `programs` says of their first word.

    A command that `programs` does not know runs on (a service), or ends at once with 0 (one-off, probe).
    Set `broken` to an error and every call raises it, as when Docker is away. `calls` is what was asked, in order.
    """

    def __init__(self, programs: Mapping[str, Program] | None = None) -> None:
        self.programs: dict[str, Program] = dict(programs or {})
        self.missing_commands: set[str] = set()
        self.broken: Exception | None = None
        self.calls: list[tuple[str, ...]] = []
        self.networks: set[Owner] = set()
        self.graces: dict[int, float] = {}
        self.containers: dict[str, FakeContainer] = {}
        self._folders: dict[tuple[Owner, int], object] = {}
        self._emptied: set[tuple[Owner, int]] = set()
        self._one_offs: dict[str, _OneOff] = {}
        self._lock = threading.RLock()

    # --- what a test does to it ------------------------------------------------------------------------------

    def crash(self, instance: Instance, exit_code: int = 1, *, out_of_memory: bool = False, said: str = "") -> None:
        """The container's command ends; Docker is about to start it again."""
        with self._lock:
            container = self.containers[instance.name]
            container.output.extend(said.splitlines())
            container.state = InstanceState(
                exists=True,
                running=False,
                exit_code=exit_code,
                out_of_memory=out_of_memory,
                restarts=container.state.restarts + 1,
            )

    def lose(self, instance: Instance) -> None:
        """Somebody removed the container behind our back."""
        with self._lock:
            del self.containers[instance.name]

    def lose_secrets(self, instance: Instance, *, folder: bool = True) -> None:
        """Somebody removed the folder of secrets beneath a container, or only what is in it."""
        with self._lock:
            place = self.containers[instance.name].owner, instance.deployment
            if folder:
                del self._folders[place]
            else:
                self._emptied.add(place)

    def finish_one_offs(self) -> None:
        """Let every one-off command that still runs come to its end, as when a machine goes on without its runner."""
        for one_off in list(self._one_offs.values()):
            if one_off.thread is not None:
                one_off.thread.join(30)

    def running(self, environment: Environment) -> list[int]:
        """Which deployments have containers there, each once, sorted."""
        return sorted({instance.deployment for instance in self.instances(environment)})

    # --- the port --------------------------------------------------------------------------------------------

    def ensure_network(self, environment: Environment) -> None:
        with self._asked("ensure_network", environment.key):
            self.networks.add(_owner(environment))

    def start(
        self, environment: Environment, deployment: int, services: Sequence[ServiceSpec], stop: Interrupt
    ) -> list[Instance]:
        stop.check()
        with self._asked("start", environment.key, str(deployment)):
            self.networks.add(_owner(environment))
            self._check_room(environment, deployment, services)
            before = set(self.containers)
            if any(spec.files is not None for spec in services):
                self._folders.setdefault((_owner(environment), deployment), object())
                self._emptied.discard((_owner(environment), deployment))
            for spec in services:
                if spec.command[0] in self.missing_commands:
                    for name in set(self.containers) - before:
                        del self.containers[name]
                    raise DeploymentFailed(
                        f"The image has no command {spec.command[0]!r}.", code="command_not_found", hint="Check it."
                    )
                for replica in range(1, spec.replicas + 1):
                    self._start_one(environment, deployment, spec, replica)
            return self.instances(environment, deployment)

    def instances(self, environment: Environment, deployment: int | None = None) -> list[Instance]:
        with self._asked("instances", environment.key):
            found = [
                container.instance
                for container in self.containers.values()
                if container.owner == _owner(environment) and deployment in {None, container.instance.deployment}
            ]
            return sorted(found, key=lambda one: (one.deployment, one.service, one.replica))

    def state(self, instance: Instance) -> InstanceState:
        with self._asked("state", instance.name):
            container = self.containers.get(instance.name)
            return container.state if container else InstanceState(exists=False)

    def tail(self, instance: Instance, lines: int = 50) -> list[str]:
        with self._asked("tail", instance.name):
            container = self.containers.get(instance.name)
            return container.output[-lines:] if container and lines > 0 else []

    def probe_command(self, instance: Instance, command: Sequence[str], timeout: float) -> tuple[bool, str]:
        with self._asked("probe_command", instance.name):
            container = self.containers.get(instance.name)
        if container is None or not container.state.running:
            return False, "the container is not running"
        said: list[str] = []
        variables = _plain(container.spec.variables)
        program = self.programs.get(command[0], _succeeds)
        status = program(Call(tuple(command), variables, said.append))
        last = next((line for line in reversed(said) if line.strip()), "")
        if status is None:
            return False, f"no answer within {timeout:g} s"
        if status:
            return False, f"exited with {status}" + (f": {last}" if last else "")
        return True, last

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
        stop.check()
        with self._asked("run", environment.key, str(deployment), name):
            self.networks.add(_owner(environment))
            if command[0] in self.missing_commands:
                raise DeploymentFailed(
                    f"The image has no command {command[0]!r}.", code="command_not_found", hint="Check it."
                )
            key = f"{environment.key}-d{deployment}-run-{name}"
            one_off = self._one_offs.get(key)
            one_off = one_off or self._begin(key, environment, deployment, command, variables, files or {})
        shown = 0
        try:
            while one_off.status is None or shown < len(one_off.output):
                stop.check()
                for line in one_off.output[shown:]:
                    log.write(line)
                    shown += 1
                if one_off.status is None:
                    time.sleep(0.005)
        except DeploymentFailed:
            self._end_one_off(key)
            raise
        return one_off.status

    def forget_run(self, environment: Environment, name: str, deployment: int) -> None:
        with self._asked("forget_run", environment.key, str(deployment), name):
            self._end_one_off(f"{environment.key}-d{deployment}-run-{name}")

    def stop(self, environment: Environment, deployment: int, grace: float) -> None:
        self.graces[deployment] = grace
        with self._asked("stop", environment.key, str(deployment)):
            self._remove(environment, deployment)

    def missing(self, environment: Environment, deployment: int, services: Mapping[str, int]) -> list[str]:
        with self._asked("missing", environment.key, str(deployment)):
            lacks = [] if _owner(environment) in self.networks else [NETWORK]
            mine = {
                (one.instance.service, one.instance.replica)
                for one in self.containers.values()
                if one.owner == _owner(environment) and one.instance.deployment == deployment
            }
            wanted = [(name, replica) for name, many in services.items() for replica in range(1, many + 1)]
            lacks += [f"{name} {replica}" for name, replica in wanted if (name, replica) not in mine]
            return lacks + self._missing_secrets(environment, deployment)

    def restart(self, instance: Instance, grace: float) -> None:
        self.graces[instance.deployment] = grace
        with self._asked("restart", instance.name):
            container = self.containers.get(instance.name)
            if container is not None:
                container.state = replace(container.state, running=False)
                self._run(container)

    def deployments(self, environment: Environment) -> set[int]:
        with self._asked("deployments", environment.key):
            owner = _owner(environment)
            services = {one.instance.deployment for one in self.containers.values() if one.owner == owner}
            return services | {one.deployment for one in self._one_offs.values() if one.owner == owner}

    def destroy(self, environment: Environment) -> None:
        with self._asked("destroy", environment.key):
            self._remove(environment, None)
            self.networks.discard(_owner(environment))

    # --- how -------------------------------------------------------------------------------------------------

    def _asked(self, *call: str) -> threading.RLock:
        if self.broken is not None:
            raise self.broken
        self.calls.append(call)
        return self._lock

    def _start_one(self, environment: Environment, deployment: int, spec: ServiceSpec, replica: int) -> None:
        name = f"{environment.key}-d{deployment}-{spec.name}-{replica}"
        container = self.containers.get(name)
        if container is None:
            instance = Instance(name, spec.name, replica, deployment, self._address(environment), spec.port)
            container = FakeContainer(instance, _owner(environment), spec, InstanceState(exists=True))
            self.containers[name] = container
        if not container.state.running:
            self._run(container)

    def _run(self, container: FakeContainer) -> None:
        spec, number = container.spec, container.instance.deployment
        container.folder = self._folders.get((container.owner, number)) if spec.files is not None else None
        container.state = replace(container.state, running=True, exit_code=None, restarts=0)
        program = self.programs.get(spec.command[0])
        call = Call(spec.command, _plain(spec.variables), container.output.append, _plain(spec.files or {}))
        status = program(call) if program else None
        if status is not None:
            self.crash(container.instance, status)

    def _missing_secrets(self, environment: Environment, deployment: int) -> list[str]:
        place = _owner(environment), deployment
        given = [
            one for one in self.containers.values() if one.folder and (one.owner, one.instance.deployment) == place
        ]
        if not given:
            return []
        lacks = [] if place in self._folders and place not in self._emptied else [FOLDER]
        lost = [one.instance for one in given if one.folder is not self._folders.get(place)]
        return lacks + [f"{INSIDE}{one.service} {one.replica}" for one in lost]

    def _check_room(self, environment: Environment, deployment: int, services: Sequence[ServiceSpec]) -> None:
        others = [one for one in self.instances(environment) if one.deployment != deployment]
        if len(others) + sum(spec.replicas for spec in services) > _FIXED_ADDRESSES:
            raise DeploymentFailed("There are no addresses left.", code="too_many_containers", hint="Fewer replicas.")

    def _address(self, environment: Environment) -> str:
        taken = {one.instance.address for one in self.containers.values() if one.owner == _owner(environment)}
        free = (f"10.99.{environment.slot}.{host}" for host in range(2, 2 + _FIXED_ADDRESSES))
        return next(address for address in free if address not in taken)

    def _begin(
        self,
        key: str,
        environment: Environment,
        deployment: int,
        command: Sequence[str],
        variables: Mapping[str, Secret],
        files: Mapping[str, Secret],
    ) -> _OneOff:
        output: list[str] = []
        call = Call(tuple(command), _plain(variables), output.append, _plain(files))
        one_off = _OneOff(_owner(environment), deployment, call, output)
        program = self.programs.get(command[0], _succeeds)

        def body() -> None:
            status = program(call)
            if status is None:
                call.killed.wait()
            one_off.status = 137 if status is None else status

        one_off.thread = threading.Thread(target=body, daemon=True)
        self._one_offs[key] = one_off
        one_off.thread.start()
        return one_off

    def _end_one_off(self, key: str) -> None:
        with self._lock:
            one_off = self._one_offs.pop(key, None)
        if one_off is not None:
            one_off.call.killed.set()

    def _remove(self, environment: Environment, deployment: int | None) -> None:
        owner = _owner(environment)
        for name, container in list(self.containers.items()):
            if container.owner == owner and deployment in {None, container.instance.deployment}:
                del self.containers[name]
        for key, one_off in list(self._one_offs.items()):
            if one_off.owner == owner and deployment in {None, one_off.deployment}:
                self._end_one_off(key)


def _owner(environment: Environment) -> Owner:
    return environment.project, environment.name


def _succeeds(_: Call) -> int:
    return 0


def _plain(secrets: Mapping[str, Secret]) -> dict[str, str]:
    return {name: secret.reveal() for name, secret in secrets.items()}
