"""The register's notary in OpenBao or HashiCorp Vault: a transit key to sign with, and a KV document for the head."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import hvac
from hvac.exceptions import InvalidPath, InvalidRequest

from branchline.adapters.identity import Signer
from branchline.adapters.vault_session import NotAVault, VaultSession
from branchline.domain.chain import Head
from branchline.domain.config import Secret

_KEY = "/v1/register-signer/keys/head"
_SIGN = "/v1/register-signer/sign/head"
_HEAD = "/v1/register/data/head"

_Answer = TypeVar("_Answer")


class VaultNotary:
    """Port `Notary`, by the server's own login."""

    def __init__(self, url: str, key: Callable[[], Secret]) -> None:
        """`key` gives the server's signing key as it is now. No connection is made yet."""
        self._signer = Signer(key)
        self._session = VaultSession(url, mount="jwt-server", role="config-writer")

    def sign(self, statement: bytes) -> tuple[int, bytes]:
        """The version of the key, and the signature."""
        return self._ask(lambda client: _signed(client, statement))

    def keys(self) -> Mapping[int, bytes]:
        """The public keys, 32 bytes each, by version."""
        return self._ask(_keys)

    def noted(self) -> Head | None:
        """The head that was noted last."""
        return self._ask(_noted)[1]

    def note(self, head: Head) -> None:
        """Note a head, unless a later one is noted already."""
        version, noted = self._ask(_noted)
        if noted is None or noted.seq < head.seq:
            self._ask(lambda client: _note(client, head, version))

    def _ask(self, question: Callable[[hvac.Client], _Answer]) -> _Answer:
        return self._session.ask("server", self._signer.server, question)


def _signed(client: hvac.Client, statement: bytes) -> tuple[int, bytes]:
    answer = client.adapter.post(_SIGN, json={"input": base64.b64encode(statement).decode()})
    with _understood():
        _, version, signature = answer["data"]["signature"].split(":")
        return int(version.removeprefix("v")), base64.b64decode(signature, validate=True)


def _keys(client: hvac.Client) -> Mapping[int, bytes]:
    answer = client.adapter.get(_KEY)
    with _understood():
        kept = answer["data"]["keys"].items()
        return {int(version): base64.b64decode(about["public_key"], validate=True) for version, about in kept}


def _noted(client: hvac.Client) -> tuple[int, Head | None]:
    """The version of the document, and what it says; version 0 where nothing was ever noted."""
    try:
        answer: Any = client.adapter.get(_HEAD)
    except InvalidPath as error:
        if error.errors:  # no such mount, and the like
            raise
        answer = error.json if isinstance(error.json, dict) else {}
        if "data" not in answer:
            return 0, None
    with _understood():
        version, data = int(answer["data"]["metadata"]["version"]), answer["data"]["data"]
        return version, Head(int(data["seq"]), bytes.fromhex(data["hash"])) if data else None


def _note(client: hvac.Client, head: Head, version: int) -> None:
    body = {"options": {"cas": version}, "data": {"seq": head.seq, "hash": head.hash.hex()}}
    try:
        client.adapter.post(_HEAD, json=body)
    except InvalidRequest as error:
        if not any("check-and-set" in said for said in error.errors or ()):
            raise
        # Somebody else has noted one at this moment, and will note the next one, too.


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError):
        raise NotAVault from None
