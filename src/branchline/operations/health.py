"""Health: when containers count as healthy, and the sentences that say why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from branchline.domain.errors import DeploymentFailed
from branchline.domain.manifest import HealthCheck, Service
from branchline.ports import Containers, Instance, InstanceState, Interrupt, Log, Probes

STEADY_SECONDS = 2.0
"""A service with neither port nor healthcheck is healthy once it has run this long without a restart."""

_FIRST_INTERVAL = 0.02
_AT_FIRST = 0.5
"""Seconds in which a service is looked at that often: most are up by then, and nobody waits for the next look."""

_TAIL_LINES = 50


@dataclass
class _Watched:
    instance: Instance
    service: Service
    passed: int = 0
    saw: str = "no answer yet"
    due: float = 0.0
    pause: float = _FIRST_INTERVAL


class Health:
    """Looks at containers until they are healthy, and after the switch whether they stay so."""

    def __init__(self, containers: Containers, probes: Probes, clock: Callable[[], float] = time.monotonic) -> None:
        self._containers = containers
        self._probes = probes
        self._clock = clock

    def await_all(
        self, instances: Sequence[Instance], services: Mapping[str, Service], log: Log, stop: Interrupt
    ) -> None:
        """Return when every instance is healthy.

        Raises DeploymentFailed: `crashed`, `out_of_memory` or `unhealthy`, with the end of the container's own
        output in the log.
        """
        began = self._clock()
        pending = [_Watched(instance, services[instance.service]) for instance in instances]
        with ThreadPoolExecutor(max_workers=8, thread_name_prefix="probe") as pool:
            while pending:
                now = self._clock()
                due = [watched for watched in pending if watched.due <= now]
                for watched, healthy in zip(due, pool.map(lambda one: self._look(one, began), due), strict=True):
                    if healthy:
                        pending.remove(watched)
                        log.write(f"{_title(watched.instance)} is healthy after {self._clock() - began:.1f} s")
                    else:
                        self._check_alive(watched, log, began)
                        self._check_time(watched, log, began)
                if pending:
                    stop.wait(max(0.0, min(watched.due for watched in pending) - self._clock()))

    def sick(self, instance: Instance, service: Service) -> str:
        """What is wrong with an instance right now, in a few words; empty when it is healthy.

        `it …` means that the container itself ended, rather than that a probe failed.
        """
        state = self._containers.state(instance)
        if state.restarts:
            return "it ran out of memory" if state.out_of_memory else "it ended"
        return self._fault(instance, service, state)

    def fault(self, instance: Instance, service: Service) -> str:
        """The same, whether or not it ever ended since it was started."""
        return self._fault(instance, service, self._containers.state(instance))

    def _fault(self, instance: Instance, service: Service, state: InstanceState) -> str:
        if not state.exists:
            return "it was removed by somebody"
        if not state.running:
            return "it ran out of memory" if state.out_of_memory else "it ended"
        check = check_of(service)
        if check is None:
            return ""
        healthy, saw = self._probes.probe(instance, check)
        return "" if healthy else saw

    def show_output(self, instance: Instance, log: Log) -> str:
        """Copy the end of a container's output to the log; return its last line that says something."""
        lines = self._containers.tail(instance, _TAIL_LINES)
        if lines:
            log.write(f"The last output of {_title(instance)}:")
        for line in lines:
            log.write(f"  {line}")
        # As it stands in the log: without secrets.
        return log.last.strip() if any(line.strip() for line in lines) else ""

    def _look(self, watched: _Watched, began: float) -> bool:
        check = check_of(watched.service)
        if check is None:
            watched.saw = "it does not keep running"
            watched.due = self._clock() + 0.25
            state = self._containers.state(watched.instance)
            return state.running and not state.restarts and self._clock() - began >= STEADY_SECONDS
        healthy, watched.saw = self._probes.probe(watched.instance, check)
        watched.passed = watched.passed + 1 if healthy else 0
        # Often at first, then as seldom as the manifest asks.
        pause = check.interval if watched.passed else min(watched.pause, check.interval)
        watched.due = self._clock() + pause
        if self._clock() - began > _AT_FIRST:
            watched.pause *= 1.5
        return watched.passed >= check.healthy_after

    def _check_alive(self, watched: _Watched, log: Log, began: float) -> None:
        state = self._containers.state(watched.instance)
        if state.running and not state.restarts:
            return
        title, last = _title(watched.instance), self.show_output(watched.instance, log)
        if state.out_of_memory:
            limit = watched.service.deploy.resources.limits.memory or 0
            raise DeploymentFailed(
                f"{title} was ended because it used more than its {limit // 1024**2} MB of memory.",
                code="out_of_memory",
                hint=f"Raise services.{watched.instance.service}.deploy.resources.limits.memory, or use less.",
            )
        if not state.exists:
            ended = "was removed by somebody"
        else:  # Docker forgets the status of a container that it has started again
            ended = "ended" if state.exit_code is None or state.running else f"ended with status {state.exit_code}"
        said = f"; it last said: {last}" if last else ", without a word"
        raise DeploymentFailed(
            f"{title} {ended} {self._clock() - began:.1f} s after its start{said}"[:500],
            code="crashed",
            hint="The end of its output is in the log of the stage verify.",
        )

    def _check_time(self, watched: _Watched, log: Log, began: float) -> None:
        check = check_of(watched.service)
        limit = check.timeout if check else 60.0
        if self._clock() - began < limit:
            return
        self.show_output(watched.instance, log)
        what = f"{_probe_title(check)}: {watched.saw}" if check else watched.saw
        raise DeploymentFailed(
            f"{_title(watched.instance)} did not become healthy within {limit:g} s ({what}).",
            code="unhealthy",
            hint=f"See the end of its output in the log, and services.{watched.instance.service}.healthcheck.",
        )


def check_complete(instances: Sequence[Instance], services: Mapping[str, Service]) -> None:
    """Raise DeploymentFailed (`containers_gone`) where there are fewer than the manifest asks for."""
    expected = sum(service.deploy.replicas for service in services.values())
    if len(instances) < expected:
        raise DeploymentFailed(
            f"{expected - len(instances)} of {expected} containers are gone.",
            code="containers_gone",
            hint="Somebody or something removed them; deploy again.",
        )


def check_of(service: Service) -> HealthCheck | None:
    """The service's healthcheck, or the one that a port suggests."""
    if service.healthcheck is not None:
        return service.healthcheck
    return HealthCheck.model_validate({"tcp": True}) if service.port else None


def _title(instance: Instance) -> str:
    return f"{instance.service} {instance.replica}"


def _probe_title(check: HealthCheck) -> str:
    if check.path:
        return f"GET {check.path}"
    return "its command" if check.command else "its port"
