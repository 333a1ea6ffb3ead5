"""Config from the side of people: keys set, hidden, taken out and read, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from branchline.domain.access import Actor, Permission, config_permission, keys_permission, values_permission
from branchline.domain.audit import Kind
from branchline.domain.config import Config, check_key, check_settable, check_value
from branchline.domain.environment import Tier, usually_inherits
from branchline.domain.errors import BadInput, NotFound
from branchline.domain.layers import COMMON, HIDDEN, Change, Layer, answering, layers_of, resolve
from branchline.domain.meant import looks_like_production, perhaps_meant
from branchline.operations.config_ledger import ConfigLedger
from branchline.operations.gate import Gate
from branchline.ports import ConfigWriter
from branchline.records import Records, Store
from branchline.wire_config import ConfigKeys, ConfigValue, ConfigValues, ConfigVersion


class Settings:
    """The config of environments. Where an environment is asked for, COMMON may stand: the project's own layer."""

    def __init__(self, store: Store, gate: Gate, writer: ConfigWriter, ledger: ConfigLedger) -> None:
        self._store = store
        self._gate = gate
        self._writer = writer
        self._ledger = ledger

    def keys(self, actor: Actor, project: str, environment: str) -> ConfigKeys:
        """Which keys are set, each with the layer that answers for it."""
        layers = self._layers(actor, keys_permission, project, environment)
        found = {layer: self._writer.keys(layer) for layer in layers}
        answers = answering(found)
        return ConfigKeys(
            project=project,
            environment=environment,
            versions={layer.name: keys.version for layer, keys in found.items()},
            keys={key: answers[key].name for key in sorted(answers) if key in found[answers[key]].shown},
        )

    def get(self, actor: Actor, project: str, environment: str, key: str) -> ConfigValue:
        """One value; production's are never shown."""
        check_key(key)
        layers = self._layers(actor, values_permission, project, environment)
        documents = [self._writer.read(layer) for layer in layers]
        config = resolve(documents)
        if key not in config:
            raise NotFound(
                f"{key} is not set in {project} {environment}.",
                code="unknown_key",
                hint=f"`branchline config list {project} {environment}` shows the keys that are.",
            )
        layer = answering({one.layer: one.keys for one in documents})[key]
        self._told(actor, project, environment, [key])
        return ConfigValue(key=key, value=config[key].reveal(), layer=layer.name, version=config.versions[layer.path])

    def export(self, actor: Actor, project: str, environment: str, *, own: bool = False) -> ConfigValues:
        """All values of an environment, or of its own layer alone with what that hides; refused for production."""
        layers = self._layers(actor, values_permission, project, environment)
        documents = [self._writer.read(layer) for layer in (layers[-1:] if own else layers)]
        config = resolve(documents)
        self._told(actor, project, environment, sorted(config))
        return ConfigValues(
            versions=_by_name(config),
            values={key: config[key].reveal() for key in sorted(config)},
            hidden=sorted(documents[0].keys.hidden) if own else [],
        )

    def change(
        self,
        actor: Actor,
        project: str,
        environment: str,
        changes: Mapping[str, str | None],
        hidden: Collection[str] = (),
        expected_version: int | None = None,
    ) -> ConfigVersion:
        """Set keys, hide what lies beneath, or with None take keys out again. The next deployment takes it up.

        Raises BadInput: `key_inherited` where a key to be taken out is set beneath only, `nothing_beneath` where
        there is nothing that could be hidden, `platforms_key` where no container would get the value, and
        `unknown_environment` where there is none of a name that looks like production's.
        """
        own = Layer(project, environment)
        layers = self._layers(actor, config_permission, project, environment)
        checked: dict[str, Change] = {
            check_key(key): None if value is None else check_value(check_settable(key), value)
            for key, value in changes.items()
        }
        checked |= {check_key(key): HIDDEN for key in hidden}
        with self._store.transaction() as records:
            known = records.projects.get(project)
            there = {COMMON, *(one.name for one in records.environments.of(project))}
        if own.name not in there and looks_like_production(own.name):
            self._check_leaving(own, checked)
        self._check_beneath(layers, checked)
        return ConfigVersion(
            version=self._ledger.write(actor, known, own, checked, expected_version),
            environment_exists=own.name in there,
            perhaps_meant="" if own.name in there else perhaps_meant(own.name, there - {COMMON}),
        )

    def _check_leaving(self, own: Layer, changes: Mapping[str, Change]) -> None:
        """What once came to lie under a name for production's can be taken out, but nothing can be added."""
        if any(change is not None for change in changes.values()) or not self._writer.keys(own).version:
            raise BadInput(
                f"{own.project} has no environment {own.name}, and production is called otherwise.",
                code="unknown_environment",
                hint=f"Did you mean production? What is set for {own.name} lies in {own.tier}, where developers can "
                "read it. If an environment is really to be called so, deploy to it first.",
            )

    def _check_beneath(self, layers: tuple[Layer, ...], changes: Mapping[str, Change]) -> None:
        *beneath, own = layers
        if HIDDEN in changes.values() and not beneath:
            raise BadInput(
                f"{own} inherits nothing that could be hidden.",
                code="nothing_beneath",
                hint="`branchline config unset` takes a key out.",
            )
        gone = {key for key, change in changes.items() if change is None}
        if not beneath or not gone:
            return
        mine = self._writer.keys(own)
        inherited = answering({layer: self._writer.keys(layer) for layer in beneath})
        for key in sorted(gone - mine.shown - mine.hidden):
            if key in inherited:
                raise BadInput(
                    f"{key} is not set in {own} itself: it comes from {inherited[key].name}.",
                    code="key_inherited",
                    hint=f"`branchline config unset {own} {key} --hide` unsets it here alone.",
                )

    def _layers(
        self, actor: Actor, permission: Callable[[Tier], Permission], project: str, environment: str
    ) -> tuple[Layer, ...]:
        """The layers of an environment, lowest first, for whoever may do this in its tier."""
        self._gate.require(actor, Permission.READ, project=project)
        own = Layer(project, environment)
        with self._store.transaction() as records:
            records.projects.get(project)
        self._gate.require(actor, permission(own.tier), project=project, environment=own.name)
        with self._store.transaction() as records:
            return layers_in(records, project, environment)

    def _told(self, actor: Actor, project: str, environment: str, keys: list[str]) -> None:
        """Values were shown to somebody: the register says whom, and which."""
        with self._store.transaction() as records:
            records.register.add(actor.event(Kind.CONFIG_READ, project, environment, detail={"keys": keys}))


def layers_in(records: Records, project: str, environment: str) -> tuple[Layer, ...]:
    """The layers of an environment, lowest first. One that does not exist yet is taken for what it will usually be."""
    if environment == COMMON:
        return (Layer(project, COMMON),)
    inherits = {one.name: one.inherits for one in records.environments.of(project)}
    return layers_of(project, environment, inherits.get(environment, usually_inherits(environment)))


def _by_name(config: Config) -> dict[str, int]:
    return {Layer.at(path).name: version for path, version in config.versions.items()}
