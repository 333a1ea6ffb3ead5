"""Config in OpenBao or HashiCorp Vault: one KV v2 document per layer, in its tier's mount.

What is asked of the store both have: reads of a version, check-and-set, merge patches, subkeys, JWT logins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from branchline.adapters.identity import Identity, Signer
from branchline.adapters.kv import Stored, create, patch, read, read_keys, versions
from branchline.adapters.vault_session import VaultSession
from branchline.domain.config import Config, Secret
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import Conflict, PlatformBroke, Refused
from branchline.domain.layers import HIDDEN, Change, Document, Keys, Layer, layers_of, layers_to_read, may_read, resolve
from branchline.ports import Written


class VaultConfigReader:
    """Reads config for one tier's runner, each environment's under a login of its own."""

    def __init__(self, url: str, tier: Tier, key: Callable[[], Secret]) -> None:
        """`key` gives the tier's signing key as it is now. No connection is made yet."""
        self._tier = tier
        self._signer = Signer(key)
        self._session = VaultSession(url, mount=f"jwt-{tier}", role="runtime")

    def read(self, environment: Environment, versions: Mapping[str, int] | None = None) -> Config:
        """The config now, or at the versions that a deployment pinned (0: that a layer was not there).

        Raises PlatformBroke: `config_gone` where a pinned version, or the newest, was deleted or pruned in the
        store; `config_unreachable` where the store does not answer; `config_refused` where it refuses us, or the
        layers are not this environment's to read.
        """
        wanted = self._layers(environment, versions)
        identity = Identity.of(environment, wanted)
        return resolve([self._read(identity, layer, version) for layer, version in wanted.items()])

    def layer(self, environment: Environment, layer: Layer, version: int) -> Document:
        """One version of one of the environment's layers, for what changed; raises what `read` raises."""
        self._layers(environment, {layer.path: version})
        # The identity that most often has just read the newest versions: its login is kept.
        usual = layers_of(environment.project, environment.name, environment.inherits)
        return self._read(Identity.of(environment, {layer, *usual}), layer, version)

    def _read(self, identity: Identity, layer: Layer, version: int | None) -> Document:
        if version == 0:  # for the store, version 0 is another word for the newest
            return Document(layer, 0, {})
        stored = self._session.ask(
            identity.subject, lambda: self._signer.runtime(identity), lambda client: read(client, layer, version)
        )
        return _document(layer, stored, version)

    def _layers(self, environment: Environment, versions: Mapping[str, int] | None) -> dict[Layer, int | None]:
        """What to read; raises PlatformBroke (`config_refused`) where that is not this runner's or environment's."""
        wanted = layers_to_read(environment, versions)
        for layer in [Layer(environment.project, environment.name), *wanted]:
            if layer.tier is not self._tier or not may_read(environment, layer):
                raise PlatformBroke(
                    f"The runner of {self._tier} does not read the config of {layer} for {environment.key}.",
                    code="config_refused",
                    hint=f"{environment.key} belongs to the tier {environment.tier}: its own runner must deploy it.",
                )
        return wanted


def _document(layer: Layer, stored: Stored, version: int | None) -> Document:
    """Raises PlatformBroke (`config_gone`) where a version that there once was cannot be read."""
    if stored.entries is None and (version is not None or stored.version):
        raise PlatformBroke(
            f"Version {version or stored.version} of the config of {layer} is gone from the store.",
            code="config_gone",
            hint="It was deleted or pruned there. Deploy anew, or restore what was deleted with `bao kv undelete`; "
            "`branchline vault login` gets you into the embedded store.",
        )
    return stored.document(layer)


class VaultConfigWriter:
    """Changes config for the server: reads nonprod, but of production only the names of its keys."""

    def __init__(self, url: str, key: Callable[[], Secret]) -> None:
        """`key` gives the server's signing key as it is now. No connection is made yet."""
        self._signer = Signer(key)
        self._session = VaultSession(url, mount="jwt-server", role="config-writer")

    def read(self, layer: Layer) -> Document:
        """A nonprod layer as it is now; raises Refused for production's."""
        if layer.tier is Tier.PRODUCTION:
            raise Refused(
                f"The values of {layer} can be written but not read.",
                code="production_config_unreadable",
                hint="`branchline config list` shows which keys are set. To know a value for sure, set it again.",
            )
        return self._look(layer).document(layer)

    def keys(self, layer: Layer) -> Keys:
        """Which keys a layer has; works for production too, where none is ever hidden."""
        stored = self._look(layer)
        entries = stored.entries or {}
        if layer.tier is Tier.PRODUCTION:
            return Keys(stored.version, frozenset(entries))
        # Not by way of a document: what no process can be given must be seen here, to be taken out.
        shown = {key for key, value in entries.items() if value is not None}
        return Keys(stored.version, frozenset(shown), frozenset(entries) - shown)

    def versions(self, layer: Layer) -> list[Written]:
        """The versions that the store knows of, newest first."""
        found = self._ask(lambda client: versions(client, layer))
        return [Written(version, datetime.fromisoformat(at), there) for version, at, there in found]

    def write(self, layer: Layer, changes: Mapping[str, Change], expected_version: int) -> int:
        """Change some keys of a version, check-and-set; return the new version.

        Where nothing would change, as far as we may know, nothing is written and the version stays. Raises Conflict
        (`config_changed`) and BadInput (`config_too_large`); nothing was written then.
        """
        old = self._look(layer)
        if old.version != expected_version:
            raise _changed(layer, f"It is at version {old.version}, not {expected_version}.")
        written = self._put(layer, old, changes)
        if written is None:
            raise _changed(layer, "Somebody wrote at the same moment.")
        return written

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        return self._session.ask("server", self._signer.server, question)

    def _look(self, layer: Layer) -> Stored:
        """What is there; for production the values of its keys are None."""
        look = read_keys if layer.tier is Tier.PRODUCTION else read
        found: Stored = self._ask(lambda client: look(client, layer))
        return found

    def _put(self, layer: Layer, old: Stored, changes: Mapping[str, Change]) -> int | None:
        """Write the changes onto `old`; the new version, or None where `old` is not the newest any more."""
        # Nothing lies beneath production that could be hidden.
        gone = {key for key, one in changes.items() if one is None or (one is HIDDEN and layer.tier is Tier.PRODUCTION)}
        plain = {key: one.reveal() if isinstance(one, Secret) else None for key, one in changes.items()}
        before = old.entries or {}
        if layer.tier is Tier.PRODUCTION and old.entries is not None:
            if not any(value is not None or key in before for key, value in plain.items()):
                return old.version
            body, method = plain, patch
        else:
            body, method = {key: one for key, one in {**before, **plain}.items() if key not in gone}, create
            if body == before:
                return old.version
        version: int | None = self._ask(lambda client: method(client, layer, body, old.version))
        return version


def _changed(layer: Layer, why: str) -> Conflict:
    return Conflict(
        f"The config of {layer} was changed by somebody else. {why}",
        code="config_changed",
        hint="Look at it again (`branchline config list`) and repeat the change.",
    )
