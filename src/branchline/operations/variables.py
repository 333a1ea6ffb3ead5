"""The environment variables of containers: what the platform says, the databases, the manifest, the config."""

from __future__ import annotations

from branchline.domain.config import Secret
from branchline.domain.errors import DeploymentFailed
from branchline.domain.manifest import Service
from branchline.operations.scene import Scene
from branchline.ports import ConfigReader, Databases


def of_platform(scene: Scene) -> dict[str, Secret]:
    """What every container is told about itself."""
    about = scene.deployment
    return {
        "BRANCHLINE_PROJECT": Secret(about.project),
        "BRANCHLINE_ENVIRONMENT": Secret(about.environment),
        "BRANCHLINE_DEPLOYMENT": Secret(str(about.id)),
        "BRANCHLINE_COMMIT": Secret(about.commit),
    }


class Variables:
    """Puts variables together. Later ones win: databases, defaults, services, the config, the platform."""

    def __init__(self, config: ConfigReader, databases: Databases) -> None:
        self._config = config
        self._databases = databases

    def config_to_pin(self, scene: Scene) -> dict[str, int]:
        """The versions of the config's layers that the deployment should pin: the newest, unless an attempt has.

        Raises DeploymentFailed (`config_missing`) that names all keys which the manifest requires and it lacks.
        """
        config = self._config.read(scene.environment, scene.deployment.config)
        if missing := [key for key in scene.manifest.config.required if key not in config]:
            about = scene.deployment
            raise DeploymentFailed(
                f"The config of {about.project} {about.environment} lacks {', '.join(missing)}.",
                code="config_missing",
                hint=f"`branchline config set {about.project} {about.environment} {missing[0]}`, "
                "or take it out of `config.required` in the manifest.",
            )
        return config.versions

    def of(self, scene: Scene, service: Service | None = None) -> dict[str, Secret]:
        """For a service, or for the release command; all secret values are hidden from the log from now on.

        Reads the config at the versions that `prepare` pinned, so that all containers of a deployment agree.
        """
        config = self._config.read(scene.environment, scene.config)
        urls = {
            database.variable: self._databases.ensure(scene.environment, name)
            for name, database in scene.manifest.databases.items()
        }
        scene.log.hide([*config.values(), *urls.values()])
        named = scene.manifest.config.optional | (service.environment if service else {})
        plain = {key: Secret(value) for key, value in named.items()}
        port = {"PORT": Secret(str(service.port))} if service and service.port else {}
        release = {"BRANCHLINE_RELEASE": Secret(scene.release)}
        return {**urls, **plain, **config, **port, **of_platform(scene), **release}
