"""Whoever signs the register's head, and keeps the newest one away from the register."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from branchline.domain.chain import Head


class Notary(Protocol):
    """Signs with Ed25519; the private key never leaves it. Old versions of the key stay good for checking."""

    def sign(self, statement: bytes) -> tuple[int, bytes]:
        """The version of the key, and the signature."""

    def keys(self) -> Mapping[int, bytes]:
        """The public keys, 32 bytes each, by version."""

    def noted(self) -> Head | None:
        """The head that was noted last."""

    def note(self, head: Head) -> None:
        """Note a head, unless a later one is noted already."""
