"""Config and databases of environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from branchline.domain.config import Config, Secret
from branchline.domain.environment import Environment


class ConfigReader(Protocol):
    """Reads an environment's config with that environment's own identity (runner side)."""

    def read(self, environment: Environment, version: int | None = None) -> Config:
        """The config now, or at a version that a deployment pinned.

        An environment that never had any has an empty config of version 0. Raises PlatformBroke `config_gone` where
        the pinned version no longer exists, `config_unreachable` where the store does not answer.
        """


class ConfigWriter(Protocol):
    """Changes config (server side). Production's values can be written here but not read."""

    def read(self, project: str, environment: str) -> Config:
        """A nonprod environment's config; raises Refused for production."""

    def keys(self, project: str, environment: str) -> tuple[list[str], int]:
        """The keys that are set, sorted, and the version; works for production too."""

    def write(
        self,
        project: str,
        environment: str,
        changes: Mapping[str, Secret | None],
        *,
        expected_version: int | None = None,
    ) -> int:
        """Set (or with None unset) some keys, check-and-set; return the new version.

        Raises Conflict (`config_changed`) when somebody else wrote in between: nothing was written then.
        """


class Databases(Protocol):
    """The databases of environments on their tier's server."""

    def ensure(self, environment: Environment, database: str) -> Secret:
        """Make the environment's database and role; return its URL as containers reach it.

        The role owns its database, can migrate it, and reaches no other.
        """

    def ensure_scratch(self, environment: Environment, database: str, name: str) -> Secret:
        """An empty throw-away database for tests, made anew on each call."""

    def drop_scratch(self, environment: Environment, database: str, name: str) -> None:
        """Drop it, ending whatever is connected."""
