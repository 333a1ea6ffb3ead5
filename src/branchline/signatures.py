"""Ed25519: public keys in PEM, and whether a signature is good. Nothing here signs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from branchline.domain.chain import Seal
from branchline.domain.errors import BadInput

_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"


def to_pem(raw: bytes) -> str:
    """A public key of 32 bytes as PEM; raises ValueError where it is none."""
    return (
        Ed25519PublicKey.from_public_bytes(raw).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    )


def from_pem(text: str) -> list[bytes]:
    """All public keys in a text, 32 bytes each, whatever stands between them; raises BadInput (`bad_public_key`)."""
    found = []
    for part in text.split(_BEGIN)[1:]:
        inner, end, _ = part.partition(_END)
        try:
            key = load_pem_public_key(f"{_BEGIN}{inner}{end}\n".encode())
        except ValueError:
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise _no_key()
        found.append(key.public_bytes_raw())
    if not found:
        raise _no_key()
    return found


def fingerprint(raw: bytes) -> str:
    """A short name for a public key, which changes with it."""
    return hashlib.sha256(raw).hexdigest()[:16]


def signed_by(keys: Collection[bytes]) -> Callable[[Seal], bool]:
    """Whether one of these keys has signed a seal."""
    known = [Ed25519PublicKey.from_public_bytes(raw) for raw in keys]

    def genuine(seal: Seal) -> bool:
        statement = seal.statement
        return any(_good(key, seal.signature, statement) for key in known)

    return genuine


def _good(key: Ed25519PublicKey, signature: bytes, statement: bytes) -> bool:
    try:
        key.verify(signature, statement)
    except InvalidSignature:
        return False
    return True


def _no_key() -> BadInput:
    return BadInput(
        "That is no Ed25519 public key in PEM.",
        code="bad_public_key",
        hint="`branchline audit keys` prints those of the register.",
    )
