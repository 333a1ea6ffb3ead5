"""Fakes of ConfigReader and ConfigWriter: one store in memory, seen by the server and by each tier's runner."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from branchline.domain.config import Config, Secret
from branchline.domain.environment import Environment, Tier, tier_of
from branchline.domain.errors import BadInput, Conflict, PlatformBroke, Refused
from branchline.domain.names import check_name

MAX_BYTES = 1024 * 1024


class FakeConfigStore:
    """Every version of every environment's config; after `go_down` all that is asked of it fails."""

    def __init__(self) -> None:
        self._down = False
        self._versions: dict[tuple[str, str], list[dict[str, str] | None]] = {}
        self._lock = threading.RLock()

    def reader(self, tier: Tier) -> FakeConfigReader:
        """What a runner of this tier has."""
        return FakeConfigReader(self, tier)

    def writer(self) -> FakeConfigWriter:
        """What the server has."""
        return FakeConfigWriter(self)

    def delete(self, project: str, environment: str, version: int) -> None:
        """Delete a version behind the platform's back."""
        self._versions[project, environment][version - 1] = None

    def go_down(self) -> None:
        """Answer nobody any more."""
        self._down = True

    def versions(self, project: str, environment: str) -> list[dict[str, str] | None]:
        """All versions, oldest first; None stands for one that was deleted."""
        if self._down:
            raise PlatformBroke("The config store cannot be reached.", code="config_unreachable", hint="Start it.")
        check_name(project, "project")
        check_name(environment, "environment")
        return self._versions.get((project, environment), [])

    def write(
        self, project: str, environment: str, changes: Mapping[str, Secret | None], expected_version: int | None
    ) -> int:
        """Add a version, where anything changes; production cannot know whether a value that is set does."""
        with self._lock:
            versions = self.versions(project, environment)
            if expected_version is not None and expected_version != len(versions):
                raise Conflict("Somebody else changed the config.", code="config_changed", hint="Look again.")
            before = (versions[-1] if versions else None) or {}
            plain = {key: secret.reveal() if secret is not None else None for key, secret in changes.items()}
            after = {key: value for key, value in {**before, **plain}.items() if value is not None}
            blind = tier_of(environment) is Tier.PRODUCTION and any(value is not None for value in plain.values())
            if after == before and not blind:
                return len(versions)
            if sum(len(key) + len(value) for key, value in after.items()) > MAX_BYTES:
                raise BadInput("The config would become too large.", code="config_too_large", hint="Use a file.")
            self._versions.setdefault((project, environment), []).append(after)
            return len(self._versions[project, environment])


class FakeConfigReader:
    """The config of one tier's environments."""

    def __init__(self, store: FakeConfigStore, tier: Tier) -> None:
        self._store = store
        self._tier = tier

    def read(self, environment: Environment, version: int | None = None) -> Config:
        """As the port promises."""
        if environment.tier is not self._tier:
            raise PlatformBroke("This runner is of another tier.", code="config_refused", hint="Use the other one.")
        versions = self._store.versions(environment.project, environment.name)
        number = len(versions) if version is None else version
        if number == 0:
            return Config()
        found = versions[number - 1] if number <= len(versions) else None
        if found is None:
            raise PlatformBroke(f"Version {number} is gone.", code="config_gone", hint="Deploy anew.")
        return Config({key: Secret(value) for key, value in found.items()}, number)


class FakeConfigWriter:
    """What the server may do to config."""

    def __init__(self, store: FakeConfigStore) -> None:
        self._store = store

    def read(self, project: str, environment: str) -> Config:
        """As the port promises."""
        if tier_of(environment) is Tier.PRODUCTION:
            raise Refused("Production's values cannot be read.", code="production_config_unreadable", hint="Set them.")
        versions = self._store.versions(project, environment)
        newest = (versions[-1] if versions else None) or {}
        return Config({key: Secret(value) for key, value in newest.items()}, len(versions))

    def keys(self, project: str, environment: str) -> tuple[list[str], int]:
        """As the port promises."""
        versions = self._store.versions(project, environment)
        return sorted((versions[-1] if versions else None) or {}), len(versions)

    def write(
        self,
        project: str,
        environment: str,
        changes: Mapping[str, Secret | None],
        *,
        expected_version: int | None = None,
    ) -> int:
        """As the port promises."""
        return self._store.write(project, environment, changes, expected_version)
