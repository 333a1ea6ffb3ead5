"""Fakes of ConfigReader and ConfigWriter: one store in memory, seen by the server and by each tier's runner."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from branchline.domain.config import Config, Secret
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import BadInput, Conflict, PlatformBroke, Refused
from branchline.domain.layers import (
    HIDDEN,
    Change,
    Document,
    Hidden,
    Keys,
    Layer,
    layers_to_read,
    may_read,
    resolve,
)
from branchline.ports import Written

MAX_BYTES = 1024 * 1024
Entries = dict[str, Secret | Hidden]


class FakeConfigStore:
    """Every version of every layer; after `go_down` all that is asked of it fails."""

    def __init__(self) -> None:
        self._down = False
        self._versions: dict[Layer, list[tuple[datetime, Entries | None]]] = {}
        self._pruned: dict[Layer, int] = {}
        self._lock = threading.RLock()

    def reader(self, tier: Tier) -> FakeConfigReader:
        """What a runner of this tier has."""
        return FakeConfigReader(self, tier)

    def writer(self) -> FakeConfigWriter:
        """What the server has."""
        return FakeConfigWriter(self)

    def delete(self, layer: Layer, version: int) -> None:
        """Delete a version behind the platform's back."""
        at, _ = self._versions[layer][version - 1]
        self._versions[layer][version - 1] = (at, None)

    def prune(self, layer: Layer, left: int) -> None:
        """Write the newest version once more and forget all but so many, as the store does where there are too many."""
        self._versions[layer].append(self._versions[layer][-1])
        self._pruned[layer] = len(self._versions[layer]) - left
        for version in range(1, self._pruned[layer] + 1):
            self.delete(layer, version)

    def put(self, project: str, name: str, values: Mapping[str, str | None]) -> int:
        """Write over what there is, as tests arrange things: None hides a key (or, in production, takes it out)."""
        layer = Layer(project, name)
        changes: dict[str, Change] = {key: HIDDEN if one is None else Secret(one) for key, one in values.items()}
        return self.write(layer, changes, len(self.versions(layer)))

    def go_down(self) -> None:
        """Answer nobody any more."""
        self._down = True

    def versions(self, layer: Layer) -> list[tuple[datetime, Entries | None]]:
        """All versions, oldest first; None stands for one that was deleted."""
        if self._down:
            raise PlatformBroke("The config store cannot be reached.", code="config_unreachable", hint="Start it.")
        return self._versions.get(layer, [])

    def pruned(self, layer: Layer) -> int:
        """How many versions, the oldest, the store knows nothing of any more."""
        return self._pruned.get(layer, 0)

    def newest(self, layer: Layer) -> Document:
        """What a layer holds now."""
        versions = self.versions(layer)
        return Document(layer, len(versions), (versions[-1][1] if versions else None) or {})

    def write(self, layer: Layer, changes: Mapping[str, Change], expected_version: int) -> int:
        """Add a version, where anything changes; production cannot know whether a value that is set does."""
        with self._lock:
            versions, production = self.versions(layer), layer.tier is Tier.PRODUCTION
            if expected_version != len(versions):
                raise Conflict("Somebody else changed the config.", code="config_changed", hint="Look again.")
            before = self.newest(layer).entries
            after: Entries = dict(before)
            for key, change in changes.items():
                if change is None or (production and change is HIDDEN):
                    after.pop(key, None)
                else:
                    after[key] = change
            blind = production and any(isinstance(change, Secret) for change in changes.values())
            if after == before and not blind:
                return len(versions)
            if (
                sum(len(key) + (len(one.reveal()) if isinstance(one, Secret) else 0) for key, one in after.items())
                > MAX_BYTES
            ):
                raise BadInput("The config would become too large.", code="config_too_large", hint="Use a file.")
            self._versions.setdefault(layer, []).append((datetime.now(UTC), after))
            return len(self._versions[layer])


class FakeConfigReader:
    """The config of one tier's environments."""

    def __init__(self, store: FakeConfigStore, tier: Tier) -> None:
        self._store = store
        self._tier = tier

    def read(self, environment: Environment, versions: Mapping[str, int] | None = None) -> Config:
        """As the port promises."""
        wanted = layers_to_read(environment, versions)
        self._check(environment, wanted)
        return resolve([self._read(layer, version) for layer, version in wanted.items()])

    def layer(self, environment: Environment, layer: Layer, version: int) -> Document:
        """As the port promises."""
        self._check(environment, [layer])
        return self._read(layer, version)

    def _check(self, environment: Environment, wanted: Iterable[Layer]) -> None:
        for layer in [Layer(environment.project, environment.name), *wanted]:
            if layer.tier is not self._tier or not may_read(environment, layer):
                raise PlatformBroke("That is not this runner's.", code="config_refused", hint="Use the other one.")

    def _read(self, layer: Layer, version: int | None) -> Document:
        versions = self._store.versions(layer)
        number = len(versions) if version is None else version
        if number == 0:
            return Document(layer, 0, {})
        found = versions[number - 1][1] if number <= len(versions) else None
        if found is None:
            raise PlatformBroke(f"Version {number} is gone.", code="config_gone", hint="Deploy anew.")
        return Document(layer, number, found)


class FakeConfigWriter:
    """What the server may do to config."""

    def __init__(self, store: FakeConfigStore) -> None:
        self._store = store

    def read(self, layer: Layer) -> Document:
        """As the port promises."""
        if layer.tier is Tier.PRODUCTION:
            raise Refused("Production's values cannot be read.", code="production_config_unreadable", hint="Set them.")
        return self._store.newest(layer)

    def keys(self, layer: Layer) -> Keys:
        """As the port promises."""
        return self._store.newest(layer).keys

    def versions(self, layer: Layer) -> list[Written]:
        """As the port promises."""
        told = [Written(n, at, entries is not None) for n, (at, entries) in enumerate(self._store.versions(layer), 1)]
        return told[self._store.pruned(layer) :][::-1]

    def write(self, layer: Layer, changes: Mapping[str, Change], expected_version: int) -> int:
        """As the port promises."""
        return self._store.write(layer, changes, expected_version)
