"""KV v2 as OpenBao and HashiCorp Vault both speak it: versions of a document, read, created, patched."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import hvac
from hvac.exceptions import InvalidPath, InvalidRequest

from branchline.adapters.vault_session import NotAVault
from branchline.domain.config import check_key, check_value
from branchline.domain.errors import BadInput, PlatformBroke
from branchline.domain.layers import HIDDEN, Document, Layer

_CAS_MISMATCH = "check-and-set parameter did not match"


@dataclass(frozen=True, repr=False)
class Stored:
    """One version of a document; `entries` is None where it is deleted, or nothing was ever written (version 0)."""

    version: int
    entries: dict[str, str | None] | None

    def document(self, layer: Layer) -> Document:
        """The same in the domain's words. JSON's null hides a key.

        Raises PlatformBroke (`config_unusable`) where somebody has written past us what no process can be given.
        """
        try:
            entries = {
                check_key(key): HIDDEN if value is None else check_value(key, value)
                for key, value in (self.entries or {}).items()
            }
        except BadInput as error:
            raise PlatformBroke(
                f"The config of {layer} cannot be used: {error.sentence}",
                code="config_unusable",
                hint="It was not written by Branchline: `branchline config unset` takes it out. Where its name is at "
                f"fault, mend {layer.path} in the store; `branchline vault login` opens the embedded one.",
            ) from None
        return Document(layer, self.version, entries)


def read(client: hvac.Client, layer: Layer, version: int | None = None) -> Stored:
    """A version, or the newest."""
    try:
        answer = client.secrets.kv.v2.read_secret_version(
            layer.path, version=version, mount_point=layer.tier.value, raise_on_deleted_version=True
        )
    except InvalidPath as error:
        return _absent(error)
    entries = _part(answer, "data", "data")
    return Stored(_part(answer, "data", "metadata", "version"), {key: _text(value) for key, value in entries.items()})


def read_keys(client: hvac.Client, layer: Layer) -> Stored:
    """The newest version with all values left out, for whoever may not see them."""
    try:
        answer = client.adapter.get(f"/v1/{layer.tier}/subkeys/{layer.path}", params={"depth": 1})
    except InvalidPath as error:
        return _absent(error)
    keys = _part(answer, "data", "subkeys")
    return Stored(_part(answer, "data", "metadata", "version"), dict.fromkeys(keys))


def versions(client: hvac.Client, layer: Layer) -> list[tuple[int, str, bool]]:
    """Number, time (ISO 8601) and whether it can be read, newest first."""
    try:
        answer = client.secrets.kv.v2.read_secret_metadata(layer.path, mount_point=layer.tier.value)
    except InvalidPath as error:
        if error.errors:
            raise
        return []
    found = _part(answer, "data", "versions").items()
    known = [
        (int(number), str(about["created_time"]), not (about["deletion_time"] or about["destroyed"]))
        for number, about in found
    ]
    return sorted(known, reverse=True)


def create(client: hvac.Client, layer: Layer, body: Mapping[str, str | None], cas: int) -> int | None:
    """Write a whole document; the version, or None where check-and-set found a newer one."""
    return _checked(
        lambda: client.secrets.kv.v2.create_or_update_secret(
            layer.path, secret=dict(body), cas=cas, mount_point=layer.tier.value
        )
    )


def patch(client: hvac.Client, layer: Layer, body: Mapping[str, str | None], cas: int) -> int | None:
    """Merge into what is there without reading it (null takes out); hvac's own patch reads, which we may not."""
    return _checked(
        lambda: client.adapter.request(
            "patch",
            f"/v1/{layer.tier}/data/{layer.path}",
            headers={"Content-Type": "application/merge-patch+json"},
            json={"options": {"cas": cas}, "data": dict(body)},
        )
    )


def _absent(error: InvalidPath) -> Stored:
    """What a 404 means: never written, or deleted in a version that it names. Anything else is raised again."""
    if error.errors == []:
        return Stored(0, None)
    if error.errors:  # no such mount, and the like
        raise error
    return Stored(_part(error.json, "data", "metadata", "version"), None)


def _checked(send: Callable[[], Any]) -> int | None:
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


def _text(value: Any) -> str | None:
    """A value as a process receives it; numbers and the like come in where people write with other tools."""
    return value if isinstance(value, str) or value is None else json.dumps(value)
