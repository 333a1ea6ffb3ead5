"""Who changed which keys of which layer: what the config's own store cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from branchline.domain.access import Actor
from branchline.domain.layers import Layer
from branchline.domain.project import Project


class Done(StrEnum):
    """What a change did to a key."""

    SET = "set"
    HIDDEN = "hidden"
    REMOVED = "removed"


@dataclass(frozen=True)
class ConfigChange:
    """One change. `version` is the one that it made; None where it was begun and nobody wrote down how it ended."""

    id: int
    layer: Layer
    base: int
    version: int | None
    actor: str
    at: datetime
    keys: Mapping[str, Done]
    proof: str = ""
    source: str = ""


class ConfigChanges(Protocol):
    """The changes of layers. Each is written down before the config's store is asked, and again afterwards."""

    def begin(
        self,
        project: Project,
        layer: Layer,
        base: int,
        actor: Actor,
        keys: Mapping[str, Done],
        at: datetime | None = None,
    ) -> int:
        """Note that this is about to be written onto version `base`; now, or that it was `at` some time before."""

    def end(self, change: int, version: int) -> ConfigChange | None:
        """Note the version that it made; return it, unless somebody has noted or forgotten it before.

        Another change of this version was made in a store that is no more: it is forgotten.
        """

    def forget(self, change: int) -> bool:
        """It was refused: nothing was written. Whether nobody has noted or forgotten it before."""

    def unfinished(self) -> list[ConfigChange]:
        """Those of all layers that did not end, oldest first."""

    def of(self, layer: Layer) -> list[ConfigChange]:
        """Newest first, those that did not end included."""
