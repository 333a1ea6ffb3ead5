"""From a release to healthy containers beside the old ones: prepare, release command, start, verify."""

from __future__ import annotations

from branchline.domain.environment import hostnames_of
from branchline.domain.errors import DeploymentFailed, PlatformBroke
from branchline.domain.layers import told
from branchline.domain.manifest import Limits
from branchline.domain.pipeline import StageResult
from branchline.operations.changes import WhatChanged
from branchline.operations.health import Health, check_complete
from branchline.operations.scene import Scene
from branchline.operations.variables import Variables
from branchline.ports import Containers, Databases, Images, Instance, ServiceSpec
from branchline.records import Store


class Launch:
    """The stages that bring a release up in its environment, while the old one keeps serving."""

    def __init__(
        self,
        store: Store,
        images: Images,
        containers: Containers,
        databases: Databases,
        variables: Variables,
        health: Health,
        changes: WhatChanged,
        *,
        domain: str,
    ) -> None:
        self._store = store
        self._images = images
        self._containers = containers
        self._databases = databases
        self._variables = variables
        self._health = health
        self._changes = changes
        self._domain = domain

    def prepare(self, scene: Scene) -> StageResult:
        """Network, databases, image; pin the config's versions, note what is live and what changes, once."""
        config = self._variables.config_to_pin(scene)  # first: where a key is missing nothing is touched
        self._containers.ensure_network(scene.environment)
        for name in scene.manifest.databases:
            self._databases.ensure(scene.environment, name)
        with scene.record() as records:
            about = scene.deployment.id
            records.deployments.note_config(about, config)
            records.deployments.note_replaces(about)
            noted = records.deployments.get(about)
            # Once more: a request that came after this deployment's may have claimed others meanwhile.
            wanted = hostnames_of(scene.manifest, scene.environment.name, self._domain)
            records.environments.claim_hostnames(scene.environment, wanted)
            hostnames = records.environments.hostnames(scene.environment)
            release = records.releases.get(noted.release or 0)
        changes = self._changes.note(scene)
        try:
            image = self._images.pull(release.image, scene.log, scene.stop)
        except PlatformBroke as error:
            if error.code == "image_gone":  # the next deployment of this commit builds it again
                with scene.record() as records:
                    records.releases.note_removed({release.id})
            raise
        return StageResult(
            {
                "image": image,
                "hostnames": hostnames,
                "config": noted.config,
                "replaces": noted.replaces,
                "release": release.number,
            },
            note=f"release {release.number}, config {told(noted.config or {})}; {changes}",
        )

    def learn_secrets(self, scene: Scene) -> None:
        """Hide from the log what `prepare` pinned, for a process that goes on where another one stopped."""
        self._variables.learn(scene)

    def release_command(self, scene: Scene) -> StageResult:
        """The project's release command, once, in the new image: migrations."""
        command = scene.manifest.release
        if command is None:
            return StageResult(note="the manifest names no release command", skipped=True)
        given = self._variables.for_release_command(scene)
        status = self._containers.run(
            scene.environment,
            "release",
            scene.deployment.id,
            scene.image,
            command,
            given.variables,
            Limits(),
            scene.log,
            scene.stop,
            given.files,
        )
        if status != 0:
            raise DeploymentFailed(
                f"The release command ended with status {status}: {scene.log.last}"[:500],
                code="release_command_failed",
                hint="Its output is in the log of the stage release. What it changed before that stays changed.",
            )
        return StageResult(note=scene.log.last[:200])

    def start(self, scene: Scene) -> StageResult:
        """The new containers, beside the old ones."""
        self._containers.forget_run(scene.environment, "release", scene.deployment.id)
        started = self._start(scene)
        return StageResult(note=f"{len(started)} container{'s' if len(started) != 1 else ''}")

    def put_back(self, scene: Scene) -> None:
        """What is missing of the containers of a deployment that is live, as `start` would have made it."""
        with self._store.transaction() as records:
            release = records.releases.get(scene.deployment.release or 0)
        self._images.pull(release.image, scene.log, scene.stop)
        self._start(scene)

    def _start(self, scene: Scene) -> list[Instance]:
        given = self._variables.for_services(scene)
        services = [
            ServiceSpec(
                name=name,
                image=scene.image,
                command=service.command,
                replicas=service.deploy.replicas,
                port=service.port,
                variables=given[name].variables,
                files=given[name].files,
                limits=service.deploy.resources.limits,
                stop_grace_period=service.stop_grace_period,
            )
            for name, service in scene.manifest.services.items()
        ]
        return self._containers.start(scene.environment, scene.deployment.id, services, scene.stop)

    def verify(self, scene: Scene) -> StageResult:
        """Every probe of every container green, as often in a row as the manifest asks."""
        instances = self._containers.instances(scene.environment, scene.deployment.id)
        check_complete(instances, scene.manifest.services)
        self._health.await_all(instances, scene.manifest.services, scene.log, scene.stop)
        return StageResult(note=f"{len(instances)} healthy")
