"""The environment variables of containers: what the platform says, the databases, the manifest, the config."""

from __future__ import annotations

from branchline.domain.config import Secret
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
    """Puts variables together. Later ones win: databases, the manifest, the config, the platform."""

    def __init__(self, config: ConfigReader, databases: Databases) -> None:
        self._config = config
        self._databases = databases

    def newest_config(self, scene: Scene) -> int:
        """The version of the config that a deployment which begins now should pin."""
        return self._config.read(scene.environment).version

    def of(self, scene: Scene, service: Service | None = None) -> dict[str, Secret]:
        """For a service, or for the release command; all secret values are hidden from the log from now on.

        Reads the config at the version that `prepare` pinned, so that all containers of a deployment agree.
        """
        pinned = scene.config_version
        config = self._config.read(scene.environment, version=pinned) if pinned else {}
        urls = {
            database.variable: self._databases.ensure(scene.environment, name)
            for name, database in scene.manifest.databases.items()
        }
        scene.log.hide([*config.values(), *urls.values()])
        plain = {key: Secret(value) for key, value in (service.environment if service else {}).items()}
        port = {"PORT": Secret(str(service.port))} if service and service.port else {}
        release = {"BRANCHLINE_RELEASE": Secret(scene.release)}
        return {**urls, **plain, **config, **port, **of_platform(scene), **release}
