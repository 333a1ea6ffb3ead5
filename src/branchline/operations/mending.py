"""Mending: what somebody removed by hand from a live environment is put back, or it is said why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.deployment import Deployment, Fence
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import BranchlineError, DeploymentFailed, PlatformBroke, TakenOver, TimedOut
from branchline.domain.manifest import Manifest
from branchline.domain.pipeline import Stage
from branchline.domain.project import Project
from branchline.operations.chores import Chore
from branchline.operations.health import Health
from branchline.operations.journal import DeploymentLog
from branchline.operations.launch import Launch
from branchline.operations.scene import Scene
from branchline.operations.traffic import routes
from branchline.ports import FOLDER, INSIDE, NETWORK, STOPPED, Containers, Instance, Proxy
from branchline.records import Records, Store

EVERY = 10.0
"""Seconds between two looks."""

_ROUTES = "the routes"
_LIMIT = 300.0
_STOP = 10.0


@dataclass(frozen=True)
class _Live:
    """A live deployment as its stages left it."""

    deployment: Deployment
    project: Project
    outputs: Mapping[Stage, Mapping[str, Any]]
    manifest: Manifest

    @property
    def hostnames(self) -> list[str]:
        """Where it has answered since its switch."""
        return list(self.outputs[Stage.PREPARE]["hostnames"])


class _Until:
    """Port `Interrupt` with nothing but a limit."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def check(self) -> None:
        if time.monotonic() > self._ends:
            raise TimedOut(f"It took longer than {_LIMIT:g} s.")

    def wait(self, seconds: float) -> None:
        self.check()
        time.sleep(seconds)


class Mending:
    """The chore of one tier's runner. It may be killed at any line: the next look finds what is still missing.

    Nobody is kept from deploying meanwhile. Whatever is put back belongs to an older deployment than the one that
    begins now, which stops it when it has switched; and the proxy's fence refuses the older one's routes by then.
    """

    def __init__(
        self,
        store: Store,
        launch: Launch,
        containers: Containers,
        proxy: Proxy,
        health: Health,
        *,
        tier: Tier,
        log_limit: int,
        starting: Callable[[], bool],
    ) -> None:
        """`starting` says whether somebody else still starts what an operator has stopped: nothing to mend."""
        self._starting = starting
        self._store = store
        self._launch = launch
        self._containers = containers
        self._proxy = proxy
        self._health = health
        self._tier = tier
        self._log_limit = log_limit
        self._known: dict[int, _Live] = {}

    def chore(self) -> Chore:
        """What a runner should do again and again."""
        return Chore("mend", EVERY, self.mend_all)

    def mend_all(self) -> None:
        """Look at every environment of the tier that is live and at which nobody works."""
        if self._starting():
            return
        with self._store.transaction() as records:
            places = records.environments.of_tier(self._tier)
            at_work = records.deployments.at_work(self._tier)
        fault: Exception | None = None
        for place in places:
            if place.live_deployment is not None and place.id not in at_work:
                try:
                    self._look_at(place, place.live_deployment)
                except PlatformBroke:
                    raise  # a server is away, for all of them
                except Exception as error:  # one environment's fault keeps no other waiting
                    fault = error
        if fault is not None:
            raise fault

    def _look_at(self, place: Environment, number: int) -> None:
        live = self._known.get(place.id)
        if live is None or live.deployment.id != number:
            live = self._learn(place, number)
        if live is not None:
            self._mend(place, live)

    def _learn(self, place: Environment, number: int) -> _Live | None:
        """Remembered as long as it is live: nothing of it changes."""
        with self._store.transaction() as records:
            deployment = records.deployments.get(number)
            stages = {one.name: one.result for one in records.deployments.stages(number)}
            outputs = {name: dict(result["output"]) for name, result in stages.items() if result}
            if not outputs.get(Stage.PREPARE):
                return None  # it became live before results were kept: the next one is the first that can be mended
            project = records.projects.get(place.project)
        manifest = Manifest.model_validate(outputs[Stage.CHECKOUT]["manifest"])
        self._known[place.id] = _Live(deployment, project, outputs, manifest)
        return self._known[place.id]

    def _mend(self, place: Environment, live: _Live) -> None:
        try:
            lacks = self._lacks(place, live)
        except PlatformBroke as error:
            if error.passing:
                raise  # it says nothing about this environment
            self._note_trouble(place, live, f"{error.sentence} {error.hint}")
            return
        fence = self._fence(place, live) if lacks else None
        if fence is None:  # all is there, or somebody deploys now, which mends it as well
            if place.trouble and not lacks and not self._faults(live, self._instances(place, live)):
                self._note_trouble(place, live, "")
            return
        with closing(DeploymentLog(self._store, live.deployment.id, self._log_limit)) as log:
            log.begin("mend")
            log.muted = place.trouble.startswith(_listed(lacks))  # what is tried every ten seconds is told once
            log.write(f"Missing: {', '.join(lacks)}")
            scene = Scene(self._store, live.deployment, live.project, place, log, _Until(_LIMIT), live.outputs)
            try:
                self._put_back(scene, live, fence, lacks)
            except TakenOver:
                return
            except BranchlineError as error:
                # A container's own words may be in it, and a container knows secrets.
                why = log.clean(f"{error.sentence} {error.hint}")
                with suppress(BranchlineError):  # where somebody is left to lead users to
                    self._lead_to_the_well(place, live, fence)
                self._note_trouble(place, live, f"{_listed(lacks)}, and cannot be put back: {why}")
                return
            log.muted = False
            log.write(f"Put back: {', '.join(lacks)}")
        with self._store.transaction() as records:
            self._register(records, live.deployment, Kind.ENVIRONMENT_MENDED, {"put_back": lacks})
        self._note_trouble(place, live, "")

    def _lacks(self, place: Environment, live: _Live) -> list[str]:
        wanted = {name: service.deploy.replicas for name, service in live.manifest.services.items()}
        lacks = self._containers.missing(place, live.deployment.id, wanted)
        if lacks:
            # Containers that look into a removed folder still serve: one after the other, when all else is there.
            return [one for one in lacks if not one.startswith(INSIDE)] or lacks[:1]
        leads_to = routes(live.manifest, self._instances(place, live))
        whole = self._proxy.leads(place, live.hostnames, leads_to)
        return [] if whole or self._proxy.leads(place, self._own(place, live), leads_to) else [_ROUTES]

    def _own(self, place: Environment, live: _Live) -> list[str]:
        """The hostnames of what is live, but for those that another environment has got meanwhile.

        Not what the books hold for the environment: that is what the newest commit asked for, which may have failed.
        """
        with self._store.transaction() as records:
            owners = records.environments.owners(live.hostnames)
        return [name for name in live.hostnames if owners.get(name, place.id) == place.id]

    def _fence(self, place: Environment, live: _Live) -> Fence | None:
        """That of the newest deployment, which was the last to change the routes; None where one runs, or went live."""
        with self._store.transaction() as records:
            newest = records.deployments.page([place.project], place.name, None, 20)
            now = records.environments.get(place.project, place.name).live_deployment
            at_work = records.deployments.at_work(self._tier)
        if now != live.deployment.id or place.id in at_work:
            return None
        return max(one.fence for one in [live.deployment, *newest])

    def _put_back(self, scene: Scene, live: _Live, fence: Fence, lacks: list[str]) -> None:
        place, number = scene.environment, live.deployment.id
        if lacks[0].startswith(INSIDE):
            self._start_anew(scene, live, fence, lacks[0].removeprefix(INSIDE))
            return
        if NETWORK in lacks:  # what was stopped in it cannot start in another
            self._containers.stop(place, number, _STOP)
        if lacks != [_ROUTES]:
            self._launch.put_back(scene)
        if FOLDER in lacks and FOLDER in self._lacks(place, live):
            raise DeploymentFailed(
                "Its containers were made to find their secrets elsewhere.",
                code="not_put_back",
                hint="Deploy again: that makes them anew.",
            )
        instances = self._instances(place, live)
        # Only for those: how the others fare, and whether they ever crashed, is not what is mended here.
        missed = {lack.removesuffix(STOPPED) for lack in lacks}
        fresh = [one for one in instances if NETWORK in lacks or _title(one) in missed]
        self._health.await_all(fresh, live.manifest.services, scene.log, scene.stop)
        if faults := self._lead_to_the_well(place, live, fence):
            raise _unwell(faults)

    def _start_anew(self, scene: Scene, live: _Live, fence: Fence, title: str) -> None:
        """Start one container again, while the others of its service have its users.

        Raises DeploymentFailed (`replica_unwell`) where one of these is not well: it may be the one before, and the
        same would befall one after the other until nobody is left.
        """
        place, services = scene.environment, live.manifest.services
        instances = self._instances(place, live)
        (instance,) = [one for one in instances if _title(one) == title]
        others = [one for one in instances if one != instance]
        siblings = [one for one in others if one.service == instance.service]
        if faults := self._faults(live, siblings):
            raise _unwell(faults)
        if siblings:
            self._lead(place, live, others, fence)
        self._containers.restart(instance, services[instance.service].stop_grace_period)
        self._health.await_all([instance], services, scene.log, scene.stop)
        if faults := self._lead_to_the_well(place, live, fence):
            raise _unwell(faults)

    def _lead_to_the_well(self, place: Environment, live: _Live, fence: Fence) -> dict[Instance, str]:
        """Lead users to the containers that are well; tell what is wrong with the others.

        Where nobody of a service is well, users are led to all of it: one may recover before the next look.
        """
        instances = self._instances(place, live)
        faults = self._faults(live, [one for one in instances if live.manifest.services[one.service].routes])
        well = {one.service for one in instances if one not in faults}
        self._lead(place, live, [one for one in instances if one not in faults or one.service not in well], fence)
        return faults

    def _faults(self, live: _Live, instances: list[Instance]) -> dict[Instance, str]:
        """What is wrong with which of these now."""
        services = live.manifest.services
        return {one: fault for one in instances if (fault := self._health.fault(one, services[one.service]))}

    def _instances(self, place: Environment, live: _Live) -> list[Instance]:
        return self._containers.instances(place, live.deployment.id)

    def _lead(self, place: Environment, live: _Live, instances: list[Instance], fence: Fence) -> None:
        self._proxy.switch(place, self._own(place, live), routes(live.manifest, instances), fence)

    def _note_trouble(self, place: Environment, live: _Live, trouble: str) -> None:
        """Said once: the register need not hear the same every ten seconds."""
        with self._store.transaction() as records:
            now = records.environments.get(place.project, place.name)
            # What a newer deployment replaced meanwhile is no trouble any more, however its mending ended.
            if now.live_deployment != live.deployment.id or now.trouble == trouble.strip():
                return
            records.environments.note_trouble(place, trouble.strip())
            if trouble:
                self._register(records, live.deployment, Kind.ENVIRONMENT_TROUBLED, {"trouble": trouble.strip()})

    @staticmethod
    def _register(records: Records, about: Deployment, kind: Kind, detail: dict[str, object]) -> None:
        records.register.add(AuditEvent(kind, "platform", about.project, about.environment, about.id, detail))


def _unwell(faults: dict[Instance, str]) -> DeploymentFailed:
    return DeploymentFailed(
        f"{', '.join(f'{_title(one)} is not well ({fault})' for one, fault in faults.items())}."[:500],
        code="replica_unwell",
        hint="Users are led to the others of its service, where there are any.",
    )


def _title(instance: Instance) -> str:
    return f"{instance.service} {instance.replica}"


def _listed(lacks: list[str]) -> str:
    text = ", ".join(lacks)
    return f"{text[:1].upper()}{text[1:]} {'are' if len(lacks) > 1 or lacks == [_ROUTES] else 'is'} missing"
