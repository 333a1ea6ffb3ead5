"""Config in OpenBao or HashiCorp Vault: one KV v2 document per environment, in its tier's mount."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import hvac
from hvac.exceptions import InvalidPath, InvalidRequest

from branchline.adapters.identity import Signer
from branchline.adapters.vault_session import NotAVault, VaultSession
from branchline.domain.config import Config, Secret
from branchline.domain.environment import Environment, Tier, tier_of
from branchline.domain.errors import Conflict, PlatformBroke, Refused
from branchline.domain.names import check_name

_PATIENCE = 10.0
"""Seconds for which a write goes on against others who write the same document."""

_CAS_MISMATCH = "check-and-set parameter did not match"


class VaultConfigReader:
    """Reads config for one tier's runner, each environment's under a login of its own."""

    def __init__(self, url: str, tier: Tier, key: Secret) -> None:
        """`key` is the tier's signing key. No connection is made yet; raises PlatformBroke for a key that is none."""
        self._tier = tier
        self._signer = Signer(key)
        self._session = VaultSession(url, mount=f"jwt-{tier}", role="runtime")

    def read(self, environment: Environment, version: int | None = None) -> Config:
        """The config now, or at a version that a deployment pinned (0: that nothing was set).

        Raises PlatformBroke: `config_gone` where the pinned version, or the newest, was deleted or pruned in the
        store; `config_unreachable` where the store does not answer; `config_refused` where it refuses us.
        """
        if environment.tier is not self._tier:
            raise PlatformBroke(
                f"The runner of {self._tier} does not read the config of {environment.key}.",
                code="config_refused",
                hint=f"{environment.key} belongs to the tier {environment.tier}: its own runner must deploy it.",
            )
        if version == 0:  # for the store, version 0 is another word for the newest
            return Config()
        path = _path(environment.project, environment.name)
        document = self._session.ask(
            path, lambda: self._signer.runtime(environment), lambda client: _read(client, self._tier, path, version)
        )
        if document.values is None and (version is not None or document.version):
            raise PlatformBroke(
                f"Version {version or document.version} of the config of {environment.key} is gone from the store.",
                code="config_gone",
                hint="It was deleted or pruned there. Restore it (`bao kv undelete`), or deploy anew.",
            )
        return document.config()


class VaultConfigWriter:
    """Changes config for the server: reads nonprod, but of production only the names of its keys."""

    def __init__(self, url: str, key: Secret) -> None:
        """`key` is the server's signing key. No connection is made yet."""
        self._signer = Signer(key)
        self._session = VaultSession(url, mount="jwt-server", role="config-writer")

    def read(self, project: str, environment: str) -> Config:
        """A nonprod environment's config; raises Refused for production."""
        if tier_of(environment) is Tier.PRODUCTION:
            raise Refused(
                f"The values of {project} {environment} can be written but not read.",
                code="production_config_unreadable",
                hint="`branchline config list` shows which keys are set. To know a value for sure, set it again.",
            )
        return self._look(project, environment).config()

    def keys(self, project: str, environment: str) -> tuple[list[str], int]:
        """The keys that are set, sorted, and the version; works for production too."""
        document = self._look(project, environment)
        return sorted(document.values or ()), document.version

    def write(
        self,
        project: str,
        environment: str,
        changes: Mapping[str, Secret | None],
        *,
        expected_version: int | None = None,
    ) -> int:
        """Set (or with None unset) some keys, check-and-set; return the new version.

        Where nothing would change, as far as we may know, nothing is written and the version stays. Without
        `expected_version`, changes that others make to other keys meanwhile are kept. Raises Conflict
        (`config_changed`) and BadInput (`config_too_large`); nothing was written then.
        """
        plain = {key: secret.reveal() if secret is not None else None for key, secret in changes.items()}
        give_up = time.monotonic() + _PATIENCE
        while True:
            document = self._look(project, environment)
            if expected_version is not None and document.version != expected_version:
                raise _changed(project, environment, f"It is at version {document.version}, not {expected_version}.")
            written = self._put(project, environment, document, plain)
            if written is not None:
                return written
            if expected_version is not None:
                raise _changed(project, environment, "Somebody wrote at the same moment.")
            if time.monotonic() > give_up:
                raise _changed(project, environment, "Others keep writing to it.")
            time.sleep(random.uniform(0.005, 0.1))  # noqa: S311 spreads writers out, guards nothing

    def _look(self, project: str, environment: str) -> _Document:
        """What is there; for production the values of its keys are None."""
        tier, path = tier_of(environment), _path(project, environment)
        look = _read_keys if tier is Tier.PRODUCTION else _read
        return self._session.ask("server", self._signer.server, lambda client: look(client, tier, path))

    def _put(self, project: str, environment: str, old: _Document, changes: Mapping[str, str | None]) -> int | None:
        """Write the changes onto `old`; the new version, or None where `old` is not the newest any more."""
        tier, path = tier_of(environment), _path(project, environment)
        before = old.values or {}
        if tier is Tier.PRODUCTION and old.values is not None:
            if not any(value is not None or key in before for key, value in changes.items()):
                return old.version
            body, method = dict(changes), _patch
        else:
            body, method = {k: v for k, v in {**before, **changes}.items() if v is not None}, _create
            if body == before:
                return old.version
        return self._session.ask(
            "server", self._signer.server, lambda client: method(client, tier, path, body, old.version)
        )


@dataclass(frozen=True, repr=False)
class _Document:
    """One version of an environment's document; `values` is None where it is deleted, or nothing was ever set (0)."""

    version: int
    values: dict[str, str | None] | None

    def config(self) -> Config:
        values = {key: Secret(value) for key, value in (self.values or {}).items() if value is not None}
        return Config(values, self.version)


def _path(project: str, environment: str) -> str:
    """Checked once more here: nothing that a URL or a templated policy could read otherwise gets through."""
    return f"{check_name(project, 'project')}/env/{check_name(environment, 'environment')}"


def _read(client: hvac.Client, tier: Tier, path: str, version: int | None = None) -> _Document:
    try:
        answer = client.secrets.kv.v2.read_secret_version(
            path, version=version, mount_point=tier.value, raise_on_deleted_version=True
        )
    except InvalidPath as error:
        return _absent(error)
    values = _part(answer, "data", "data")
    return _Document(
        _part(answer, "data", "metadata", "version"),
        {key: _text(value) for key, value in values.items() if value is not None},
    )


def _read_keys(client: hvac.Client, tier: Tier, path: str) -> _Document:
    try:
        answer = client.adapter.get(f"/v1/{tier}/subkeys/{path}", params={"depth": 1})
    except InvalidPath as error:
        return _absent(error)
    keys = _part(answer, "data", "subkeys")
    return _Document(_part(answer, "data", "metadata", "version"), dict.fromkeys(keys))


def _absent(error: InvalidPath) -> _Document:
    """What a 404 means: never set, or deleted in a version that it names. Anything else is raised again."""
    if error.errors == []:
        return _Document(0, None)
    if error.errors:  # no such mount, and the like
        raise error
    return _Document(_part(error.json, "data", "metadata", "version"), None)


def _create(client: hvac.Client, tier: Tier, path: str, body: Mapping[str, str | None], cas: int) -> int | None:
    return _checked(
        lambda: client.secrets.kv.v2.create_or_update_secret(path, secret=body, cas=cas, mount_point=tier.value)
    )


def _patch(client: hvac.Client, tier: Tier, path: str, body: Mapping[str, str | None], cas: int) -> int | None:
    """Merge into what is there without reading it; hvac's own patch reads first, which production forbids."""
    return _checked(
        lambda: client.adapter.request(
            "patch",
            f"/v1/{tier}/data/{path}",
            headers={"Content-Type": "application/merge-patch+json"},
            json={"options": {"cas": cas}, "data": body},
        )
    )


def _checked(send: Callable[[], Any]) -> int | None:
    """The version that was written, or None where check-and-set found a newer one."""
    try:
        version: int = _part(send(), "data", "version")
    except InvalidRequest as error:
        if any(_CAS_MISMATCH in said for said in error.errors or ()):
            return None
        raise
    return version


def _part(answer: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(answer, dict) or key not in answer:
            raise NotAVault
        answer = answer[key]
    return answer


def _text(value: Any) -> str:
    """A value as a process receives it; numbers and the like come in where people write with other tools."""
    return value if isinstance(value, str) else json.dumps(value)


def _changed(project: str, environment: str, why: str) -> Conflict:
    return Conflict(
        f"The config of {project} {environment} was changed by somebody else. {why}",
        code="config_changed",
        hint="Look at it again (`branchline config list`) and repeat the change.",
    )
