"""The environment variables of containers: what the platform says, the databases, the manifest, the config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from branchline.domain.config import MAX_VALUE_BYTES, Config, Secret
from branchline.domain.environment import inherited_by
from branchline.domain.errors import DeploymentFailed
from branchline.domain.manifest import Service
from branchline.operations.scene import Scene
from branchline.ports import SECRETS, ConfigReader, Databases

_MOST_BYTES = 3 * 1024**2 // 2
"""Linux gives a process a quarter of its stack's limit, mostly 2 MiB, for arguments and variables together. The rest is
for what the image, the platform and the databases add, and for a pointer to each."""


def of_platform(scene: Scene) -> dict[str, Secret]:
    """What every container is told about itself."""
    about = scene.deployment
    return {
        "BRANCHLINE_PROJECT": Secret(about.project),
        "BRANCHLINE_ENVIRONMENT": Secret(about.environment),
        "BRANCHLINE_DEPLOYMENT": Secret(str(about.id)),
        "BRANCHLINE_COMMIT": Secret(about.commit),
    }


@dataclass(frozen=True)
class Given:
    """What a container is given: environment variables, and secrets as files where the manifest asks for these."""

    variables: Mapping[str, Secret]
    files: Mapping[str, Secret] | None


class Variables:
    """Puts variables together. Later ones win: databases, defaults, services, the config, the platform."""

    def __init__(self, config: ConfigReader, databases: Databases) -> None:
        self._config = config
        self._databases = databases

    def config_to_pin(self, scene: Scene) -> dict[str, int]:
        """The versions of the config's layers that the deployment should pin: the newest, unless an attempt has.

        Raises DeploymentFailed: `config_missing` that names all keys which the manifest requires and it lacks,
        `config_too_large` where no process could be given that much.
        """
        config = self._newest_or_pinned(scene)
        _check_there(scene, config, scene.manifest.config.required, "take it out of `config.required` in the manifest")
        for name, service in scene.manifest.services.items():
            _check_size(name, _variables(scene, service, config))
        return config.versions

    def learn(self, scene: Scene) -> None:
        """Hide all secret values from the log, for a process that goes on where another one stopped."""
        self._pinned(scene)

    def for_release_command(self, scene: Scene) -> Given:
        """What the release command is given; all secret values are hidden from the log from now on."""
        return _given(scene, None, *self._pinned(scene))

    def for_services(self, scene: Scene) -> dict[str, Given]:
        """What each service is given; all secret values are hidden from the log from now on."""
        config, urls = self._pinned(scene)
        return {name: _given(scene, service, config, urls) for name, service in scene.manifest.services.items()}

    def _pinned(self, scene: Scene) -> tuple[Config, dict[str, Secret]]:
        """The config at the versions that `prepare` pinned, so that all containers agree, and the databases' URLs."""
        config = self._config.read(scene.environment, scene.config)
        urls = {
            database.variable: self._databases.ensure(scene.environment, name)
            for name, database in scene.manifest.databases.items()
        }
        scene.log.hide([*config.values(), *urls.values()])
        return config, urls

    def for_build(self, scene: Scene) -> dict[str, Secret]:
        """The secrets that the manifest names for the build; hidden from the log from now on.

        What is read for it is pinned, so that the containers get values of the same versions. Raises DeploymentFailed
        (`config_missing`) that names all keys which are not there.
        """
        names = scene.manifest.build.secrets
        if not names:
            return {}
        config = self._newest_or_pinned(scene)
        _check_there(scene, config, names, "take it out of `build.secrets` in the manifest")
        with scene.record() as records:
            records.deployments.note_config(scene.deployment.id, config.versions)
        scene.log.hide([config[name] for name in names])
        return {name: config[name] for name in names}

    def _newest_or_pinned(self, scene: Scene) -> Config:
        """What an attempt or a stage before has pinned, else the newest.

        Of the layers that this commit's manifest says: another one's may have said something else since.
        """
        with scene.record() as records:
            pinned = records.deployments.get(scene.deployment.id).config
        beneath = inherited_by(scene.manifest, scene.environment.name)
        return self._config.read(replace(scene.environment, inherits=beneath), pinned)


def _given(scene: Scene, service: Service | None, config: Config, urls: Mapping[str, Secret]) -> Given:
    """For a service, or for the release command."""
    told = {"BRANCHLINE_RELEASE": Secret(scene.release), **of_platform(scene)}
    if service and service.port:
        told["PORT"] = Secret(str(service.port))
    if scene.manifest.secrets == "environment":
        return Given({**urls, **_variables(scene, service, config), **told}, None)
    told["BRANCHLINE_SECRETS"] = Secret(SECRETS)
    # A program looks for a key in one place, whether somebody has set it or its default holds.
    plain = service.environment if service else {}
    beneath = {key: value for key, value in {**urls, **_defaults(scene)}.items() if key not in plain}
    return Given({**_variables(scene, service, config), **told}, {**beneath, **config})


def _defaults(scene: Scene) -> dict[str, Secret]:
    return {key: Secret(value) for key, value in scene.manifest.config.optional.items()}


def _variables(scene: Scene, service: Service | None, config: Config) -> dict[str, Secret]:
    """The variables of a service, or of the release command, but for what platform and databases tell."""
    plain = {key: Secret(value) for key, value in service.environment.items()} if service else {}
    if scene.manifest.secrets == "environment":
        return {**_defaults(scene), **plain, **config}
    return {key: value for key, value in plain.items() if key not in config}


def _check_size(service: str, variables: Mapping[str, Secret]) -> None:
    """What the kernel would refuse at the start is refused here, while nothing has been touched yet."""
    sizes = {key: len(key) + len(value.reveal().encode()) + 2 for key, value in variables.items()}
    for key, size in sizes.items():
        if size >= MAX_VALUE_BYTES:
            raise DeploymentFailed(
                f"The value of {key} for {service} is too long for an environment variable.",
                code="config_too_large",
                hint="The limit is 128 KiB; put larger things into a file or a bucket.",
            )
    if (size := sum(sizes.values())) > _MOST_BYTES:
        raise DeploymentFailed(
            f"The environment variables of {service} would have {size // 1024} KiB, more than a process can be given.",
            code="config_too_large",
            hint=f"Write `secrets: files` into the manifest: the config then comes as files. Variables may have "
            f"{_MOST_BYTES // 1024} KiB together.",
        )


def _check_there(scene: Scene, config: Config, keys: Sequence[str], otherwise: str) -> None:
    missing = [key for key in keys if key not in config]
    if missing:
        about = scene.deployment
        raise DeploymentFailed(
            f"The config of {about.project} {about.environment} lacks {', '.join(missing)}.",
            code="config_missing",
            hint=f"`branchline config set {about.project} {about.environment} {missing[0]}`, or {otherwise}.",
        )
