"""A notary with a key of its own, and the head noted in memory."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from branchline.domain.chain import Head
from branchline.domain.errors import PlatformBroke


class FakeNotary:
    """Port `Notary`. `away` makes it as unreachable as a stopped server."""

    def __init__(self) -> None:
        self._private = [Ed25519PrivateKey.generate()]
        self._noted: Head | None = None
        self.away = False

    @property
    def public(self) -> bytes:
        """The newest public key."""
        return self._private[-1].public_key().public_bytes_raw()

    def rotate(self) -> None:
        """Sign with another key from now on."""
        self._private.append(Ed25519PrivateKey.generate())

    def sign(self, statement: bytes) -> tuple[int, bytes]:
        self._check()
        return len(self._private), self._private[-1].sign(statement)

    def keys(self) -> Mapping[int, bytes]:
        self._check()
        return {version: key.public_key().public_bytes_raw() for version, key in enumerate(self._private, 1)}

    def noted(self) -> Head | None:
        self._check()
        return self._noted

    def note(self, head: Head) -> None:
        self._check()
        if self._noted is None or self._noted.seq < head.seq:
            self._noted = head

    def _check(self) -> None:
        if self.away:
            raise PlatformBroke("The config store does not answer.", code="config_unreachable")
