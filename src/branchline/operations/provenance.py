"""Where config comes from: which layer answers for a key, who set it when, what it hides; never a value."""

from __future__ import annotations

from branchline.config_records import Done
from branchline.domain.access import Actor, Permission, keys_permission
from branchline.domain.config import check_key
from branchline.domain.environment import Environment, Tier, inherited_by
from branchline.domain.errors import BadInput, NotFound, PlatformBroke
from branchline.domain.layers import Keys, Layer, answering, layers_of, pinned, resolve
from branchline.operations.config import layers_in
from branchline.operations.config_ledger import ConfigLedger
from branchline.operations.gate import Gate
from branchline.ports import ConfigWriter
from branchline.records import Store
from branchline.wire_config import (
    ConfigDifference,
    ConfigHistory,
    ConfigStatus,
    KeyExplanation,
    KeyOrigin,
    LayerVersion,
)


class Provenance:
    """What is known of config besides its values."""

    def __init__(self, store: Store, gate: Gate, writer: ConfigWriter, ledger: ConfigLedger) -> None:
        self._store = store
        self._gate = gate
        self._writer = writer
        self._ledger = ledger

    def explain(self, actor: Actor, project: str, environment: str, key: str | None = None) -> list[KeyExplanation]:
        """For each key, or one: the layer that answers, and what lies hidden beneath."""
        layers = self._layers(actor, project, environment)
        found = {layer: self._writer.keys(layer) for layer in layers}
        answers = answering(found)
        if key is not None and check_key(key) not in answers:
            raise NotFound(
                f"No layer of {project} {environment} has {key}.",
                code="unknown_key",
                hint=f"`branchline config list {project} {environment}` shows the keys that there are.",
            )
        tellers = {layer: _Teller(self._ledger, layer, keys) for layer, keys in found.items()}
        explained = []
        for name in [key] if key is not None else sorted(answers):
            mentions = [layer for layer in reversed(layers) if name in found[layer].shown | found[layer].hidden]
            origins = [tellers[layer].origin(name) for layer in mentions]
            explained.append(KeyExplanation(key=name, origin=origins[0], hides=origins[1:]))
        return explained

    def history(
        self, actor: Actor, project: str, environment: str, key: str | None = None, limit: int = 50
    ) -> list[ConfigHistory]:
        """The versions of one layer, newest first: who changed which keys."""
        layer = self._layers(actor, project, environment)[-1]
        if key is not None:
            check_key(key)
        history = []
        for written, change in self._ledger.versions(layer):
            if key is None or (change and key in change.keys):
                history.append(
                    ConfigHistory(
                        version=written.version,
                        at=written.at,
                        by=change.actor if change else None,
                        keys={name: str(done) for name, done in change.keys.items()} if change else {},
                        there=written.there,
                    )
                )
        return history[:limit]

    def diff(self, actor: Actor, project: str, left: str, right: str) -> list[ConfigDifference]:
        """The keys in which two environments differ. Production's values cannot be compared with anything.

        Raises BadInput (`same_environment`) where they are one.
        """
        first = self._layers(actor, project, left)
        if left == right:
            raise BadInput(
                f"{left} cannot be compared with itself.",
                code="same_environment",
                hint=f"`branchline env list {project}` shows the environments that there are.",
            )
        sides = []
        for environment in (left, right):
            layers = first if environment == left else self._layers(actor, project, environment)
            values = None
            if layers[-1].tier is Tier.PRODUCTION:
                found = {layer: self._writer.keys(layer) for layer in layers}
            else:
                self._gate.require(actor, Permission.CONFIG_READ, project=project, environment=environment)
                documents = [self._writer.read(layer) for layer in layers]
                found, values = {one.layer: one.keys for one in documents}, resolve(documents)
            answers = {key: one for key, one in answering(found).items() if key in found[one].shown}
            sides.append((answers, values))
        (mine, my_values), (others, other_values) = sides
        differences = []
        for key in sorted({*mine, *others}):
            if key in mine and key in others:
                if my_values is None or other_values is None:
                    what = "unknown"
                elif my_values.get(key) == other_values.get(key):
                    continue
                else:
                    what = "differs"
            else:
                what = "left" if key in mine else "right"
            names = [side[key].name if key in side else None for side in (mine, others)]
            differences.append(ConfigDifference(key=key, what=what, left=names[0], right=names[1]))
        return differences

    def status(self, actor: Actor, environment: Environment) -> ConfigStatus | None:
        """How the config of what is live stands to the newest; None where nothing is live.

        Which keys have changed is told to those who may know them.
        """
        if environment.live_deployment is None:
            return None
        with self._store.transaction() as records:
            live = records.deployments.get(environment.live_deployment)
            release = records.releases.get(live.release) if live.release else None
        beneath = inherited_by(release.manifest, environment.name) if release else environment.inherits
        try:
            layers = layers_of(environment.project, environment.name, beneath)
            status = self._compare(layers, pinned(live.config or {}))
        except PlatformBroke as error:
            return ConfigStatus(trouble=error.sentence)
        if not actor.may(keys_permission(environment.tier), environment.project):
            return status.model_copy(update={"keys": []})
        return status

    def _compare(self, layers: tuple[Layer, ...], live: dict[Layer, int]) -> ConfigStatus:
        versions, keys = [], set()
        for layer in layers:
            known, before = self._ledger.versions(layer), live.get(layer, 0)
            newest = known[0][0].version if known else 0
            # Deleted, destroyed, pruned, or of a store that was replaced: then its numbers begin anew.
            gone = before > 0 and not any(one.version == before and one.there for one, _ in known)
            versions.append(LayerVersion(layer=layer.name, live=before, newest=newest, gone=gone))
            for written, change in known:
                if change and before < written.version:
                    keys |= set(change.keys)
        behind = any(one.live != one.newest for one in versions)
        return ConfigStatus(behind=behind, layers=versions, keys=sorted(keys))

    def _layers(self, actor: Actor, project: str, environment: str) -> tuple[Layer, ...]:
        self._gate.require(actor, Permission.READ, project=project)
        own = Layer(project, environment)
        with self._store.transaction() as records:
            records.projects.get(project)
        self._gate.require(actor, keys_permission(own.tier), project=project, environment=own.name)
        with self._store.transaction() as records:
            return layers_in(records, project, environment)


class _Teller:
    """Says of the keys of one layer who set them."""

    def __init__(self, ledger: ConfigLedger, layer: Layer, keys: Keys) -> None:
        self._layer = layer
        self._keys = keys
        self._versions = ledger.versions(layer) if keys.version else []

    def origin(self, key: str) -> KeyOrigin:
        """Where a key of this layer comes from. What was written past us nobody can put a name to."""
        done = Done.HIDDEN if key in self._keys.hidden else Done.SET
        since, change = next(((one.version, by) for one, by in self._versions if by and key in by.keys), (0, None))
        if change and change.keys[key] is not done:
            change = None  # what we did last to it was undone past us
        outside = [one.version for one, by in self._versions if by is None and one.version > since]
        return KeyOrigin(
            layer=self._layer.name,
            hidden=done is Done.HIDDEN,
            version=change.version if change else None,
            at=change.at if change else None,
            by=change.actor if change else None,
            outside=max(outside, default=None),
        )
