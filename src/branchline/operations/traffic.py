"""Traffic: switch to the new containers, watch them, drain the old ones; or undo all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from branchline.domain.audit import Kind
from branchline.domain.deployment import Deployment
from branchline.domain.environment import hostnames_of
from branchline.domain.errors import Conflict, DeploymentFailed, PlatformBroke
from branchline.domain.manifest import Manifest, Service
from branchline.domain.pipeline import TIME_LIMITS, Stage, StageResult
from branchline.operations.entries import by_platform, so_far, what_changed
from branchline.operations.health import Health, check_complete, check_of
from branchline.operations.scene import Scene
from branchline.ports import Containers, Instance, Proxy, Route
from branchline.records import Records, Store

_DEFAULT_PAUSE = 1.0
_SETTLE = 0.05
_DRAINING = 0.9
"""Share of the stage's time limit after which even busy containers are stopped, rather than left to run on."""


class TrafficShift:
    """The stages around the one moment that users notice."""

    def __init__(
        self,
        store: Store,
        containers: Containers,
        proxy: Proxy,
        health: Health,
        *,
        domain: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._containers = containers
        self._proxy = proxy
        self._health = health
        self._domain = domain
        self._clock = clock

    def switch(self, scene: Scene) -> StageResult:
        """Send all traffic to the new containers, in one move."""
        instances = self._containers.instances(scene.environment, scene.deployment.id)
        mark = self._proxy.mark()
        scene.stop.check()
        self._proxy.switch(
            scene.environment, scene.hostnames, routes(scene.manifest, instances), scene.deployment.fence
        )
        self._note_switched(scene)
        address = self._proxy.url(scene.hostnames[0]) if _routed(scene.manifest) else "no route"
        return StageResult({"mark": mark}, note=address)

    def watch(self, scene: Scene) -> StageResult:
        """Look on for a while: failing probes, restarts or too many 5xx mean that the release is sick."""
        watch = scene.manifest.watch
        instances = self._containers.instances(scene.environment, scene.deployment.id)
        check_complete(instances, scene.manifest.services)
        mark = int(scene.outputs[Stage.SWITCH]["mark"])
        failures = {instance.name: 0 for instance in instances}
        began = self._clock()
        while (passed := self._clock() - began) < watch.window:
            for instance in instances:
                scene.stop.check()
                saw = self._health.sick(instance, scene.manifest.services[instance.service])
                failures[instance.name] = failures[instance.name] + 1 if saw else 0
                ended = saw.startswith("it ")
                if saw and (ended or failures[instance.name] >= watch.failures):
                    self._health.show_output(instance, scene.log)
                    raise _sick(scene, f"{instance.service} {instance.replica} turned sick", saw, passed)
            seen = self._proxy.traffic(scene.hostnames, mark)
            if seen.requests >= watch.requests and seen.errors > watch.errors * seen.requests:
                raise _sick(scene, "too many requests failed", f"{seen.errors} of {seen.requests} with 5xx", passed)
            scene.stop.wait(max(0.0, min(self._pause(scene), watch.window - passed)))
        seen = self._proxy.traffic(scene.hostnames, mark)
        return StageResult(note=f"{seen.requests} requests, {seen.errors} with 5xx")

    def drain(self, scene: Scene) -> StageResult:
        """The old containers finish what they began, then stop; whatever else is left of before goes as well."""
        mine = scene.deployment.id
        # Only those before it: a runner that comes back late must not stop what a newer deployment has started.
        old = [one for one in self._containers.instances(scene.environment) if one.deployment < mine]
        targets = [f"{one.address}:{one.port}" for one in old if one.port]
        _, before = self._before(scene)
        grace = max(_grace(manifest) for manifest in (scene.manifest, before) if manifest)
        began = self._clock()
        scene.stop.wait(_SETTLE)  # a request that the proxy sent off just before the switch shows up now at the latest
        limit = scene.manifest.timeouts.get("drain", TIME_LIMITS[Stage.DRAIN])
        patience = min(grace, _DRAINING * limit)
        while self._busy(targets) and self._clock() - began < patience:
            scene.stop.wait(0.1)
        took = self._clock() - began
        for deployment in sorted({one.deployment for one in old}):
            # Docker waits for as long as it is told, and heeds no limit of ours meanwhile.
            left = max(0.0, limit - (self._clock() - began))
            self._containers.stop(scene.environment, deployment, min(grace, left))
        return StageResult(note=f"{len(old)} stopped after {took:.1f} s" if old else "nothing was live before")

    def undo(self, scene: Scene) -> StageResult:
        """Put back what was live before, if it is not live still, and remove the new containers."""
        with self._store.transaction() as records:
            switched = any(one.name is Stage.SWITCH for one in records.deployments.stages(scene.deployment.id))
        before, manifest = self._before(scene)
        scene.stop.check()
        note = "nothing had changed for users"
        if switched:
            if before and manifest:
                back = routes(manifest, self._containers.instances(scene.environment, before))
                self._proxy.switch(scene.environment, self._reclaim(scene, manifest), back, scene.deployment.fence)
                note = f"deployment {before} is live again"
            else:
                self._proxy.switch(scene.environment, scene.hostnames, [], scene.deployment.fence)
                note = "there was no earlier release to go back to"
            self._note_undone(scene, before)
        self._containers.stop(scene.environment, scene.deployment.id, grace=5.0)
        scene.log.write(note)
        return StageResult(note=note)

    def _busy(self, targets: Sequence[str]) -> bool:
        try:
            return bool(targets) and self._proxy.in_flight(targets) > 0
        except PlatformBroke:
            return True  # nobody can say: they get all of their time

    def _before(self, scene: Scene) -> tuple[int | None, Manifest | None]:
        """The deployment that this one replaces, and its manifest; None where it is the first."""
        with self._store.transaction() as records:
            about = records.deployments.get(scene.deployment.id)
            before = records.deployments.get(about.replaces) if about.replaces else None
            if before is None or before.release is None:
                return None, None
            return before.id, records.releases.get(before.release).manifest

    def _reclaim(self, scene: Scene, manifest: Manifest) -> list[str]:
        """The hostnames that were the earlier release's own, as far as nobody else took one meanwhile."""
        wanted = hostnames_of(manifest, scene.environment.name, self._domain)
        try:
            with scene.record() as records:
                records.environments.claim_hostnames(scene.environment, wanted)
        except Conflict as error:
            scene.log.write(error.sentence)
            with self._store.transaction() as records:
                held = records.environments.hostnames(scene.environment)
            return [name for name in wanted if name in held]
        return wanted

    @staticmethod
    def _note_switched(scene: Scene) -> None:
        about = scene.deployment
        with scene.record() as records:
            records.environments.set_live(scene.environment, about.id)
            if records.deployments.note_switched(about.id):  # a stage that begins again has one line all the same
                _register(records, Kind.DEPLOYMENT_SWITCHED, about, about.id)

    @staticmethod
    def _note_undone(scene: Scene, before: int | None) -> None:
        about = scene.deployment
        with scene.record() as records:
            records.environments.set_live(scene.environment, before)
            if records.deployments.note_undone(about.id):
                _register(records, Kind.DEPLOYMENT_UNDONE, about, before)

    @staticmethod
    def _pause(scene: Scene) -> float:
        checks = [check for service in scene.manifest.services.values() if (check := check_of(service))]
        return max(0.2, min([_DEFAULT_PAUSE, *(check.interval for check in checks)]))


def routes(manifest: Manifest, instances: Sequence[Instance]) -> list[Route]:
    """Where each path prefix of the manifest leads, given the containers that are there.

    Raises DeploymentFailed (`containers_gone`) rather than leading users to nobody.
    """
    return [
        Route(prefix, _targets(name, service, instances))
        for name, service in manifest.services.items()
        for prefix in service.routes
    ]


def _targets(name: str, service: Service, instances: Sequence[Instance]) -> tuple[str, ...]:
    targets = tuple(f"{one.address}:{service.port}" for one in instances if one.service == name)
    if not targets:
        raise DeploymentFailed(
            f"No container of {name} is left to send requests to.",
            code="containers_gone",
            hint="Somebody or something removed them; deploy again.",
        )
    return targets


def _register(records: Records, kind: Kind, about: Deployment, live: int | None) -> None:
    known = so_far(records, about.id) | what_changed(records, about.id)
    records.register.add(by_platform(kind, about, known, {"live": live}))


def _grace(manifest: Manifest) -> float:
    return max(service.stop_grace_period for service in manifest.services.values())


def _routed(manifest: Manifest) -> bool:
    return any(service.routes for service in manifest.services.values())


def _sick(scene: Scene, what: str, saw: str, after: float) -> DeploymentFailed:
    before = scene.outputs[Stage.PREPARE]["replaces"]
    now = "What was live before is live again." if before else "There was no release before to go back to."
    return DeploymentFailed(
        f"{after:.0f} s after the switch, {what} ({saw}).",
        code="sick_after_switch",
        hint=f"{now} The end of the container's output is in the log.",
    )
