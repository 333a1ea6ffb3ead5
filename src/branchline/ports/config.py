"""Config in its store: read under an environment's own identity, written by the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from branchline.domain.config import Config
from branchline.domain.environment import Environment
from branchline.domain.layers import Change, Document, Keys, Layer


class ConfigReader(Protocol):
    """Reads an environment's config with that environment's own identity (runner side)."""

    def read(self, environment: Environment, versions: Mapping[str, int] | None = None) -> Config:
        """The config now, resolved from the environment's layers, or at the versions that a deployment pinned.

        A layer that never was there counts as empty, of version 0. Raises PlatformBroke: `config_gone` where a
        pinned version no longer exists, `config_unreachable` where the store does not answer, `config_refused`.
        """

    def layer(self, environment: Environment, layer: Layer, version: int) -> Document:
        """One version of one of the environment's layers (0: that it was not there); raises what `read` raises."""


@dataclass(frozen=True)
class Written:
    """A version of a layer, as the store knows it. `there` says whether it can still be read."""

    version: int
    at: datetime
    there: bool


class ConfigWriter(Protocol):
    """Changes config (server side). Production's values can be written here but not read."""

    def read(self, layer: Layer) -> Document:
        """A nonprod layer as it is now; raises Refused (`production_config_unreadable`) for production's."""

    def keys(self, layer: Layer) -> Keys:
        """Which keys a layer has; works for production too, where none is ever hidden."""

    def versions(self, layer: Layer) -> list[Written]:
        """The versions that the store knows of, newest first."""

    def write(self, layer: Layer, changes: Mapping[str, Change], expected_version: int) -> int:
        """Change some keys of a version, check-and-set; return the new version, or the old where nothing changes.

        Raises Conflict (`config_changed`) where the layer is at another version by now, BadInput
        (`config_too_large`): nothing was written then.
        """
