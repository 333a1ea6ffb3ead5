"""ID tokens: whether what they say can be believed (OpenID Connect Core, 3.1.3.7), and the keys that sign them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
from collections.abc import Callable, Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import Key, KeySet, OctKey

from branchline.domain.config import Secret
from branchline.domain.errors import Refused

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Signatures that we believe: by keys which only the provider has. Never `none`; never HS*, whose key is shared."""

LEEWAY = 30
"""Seconds by which the provider's clock and ours may differ."""

OLDEST = 600
"""Seconds since a token was issued: it was asked for a moment ago."""

KEYS_FRESH_SECONDS = 3600.0
ASK_AGAIN_SECONDS = 10.0
"""How often at the most the keys are asked for because a token names one that we do not know."""


def challenge(verifier: Secret) -> str:
    """The S256 challenge of PKCE."""
    return _encoded(hashlib.sha256(verifier.reveal().encode()).digest())


class IdTokens:
    """Verifies the tokens of one issuer for one client. `fetch` gets its key set. Safe to share between threads."""

    def __init__(
        self, issuer: str, client: str, fetch: Callable[[], Mapping[str, Any]], clock: Callable[[], float]
    ) -> None:
        self._issuer = issuer
        self._client = client
        self._fetch = fetch
        self._clock = clock
        self._keys: KeySet | None = None
        self._at = 0.0
        self._lock = threading.Lock()

    def verified(self, token: str, nonce: str, access_token: str = "") -> dict[str, Any]:
        """The claims; raises Refused (`bad_id_token`) where anything about the token is not as it must be.

        Raises PlatformBroke where the keys cannot be had.
        """
        try:
            return self._verified(token, nonce, access_token)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            # what the library says may repeat claims; its kind is enough
            raise _unbelievable(f"cannot be verified ({type(error).__name__})") from None

    def _verified(self, token: str, nonce: str, access_token: str) -> dict[str, Any]:
        try:
            decoded = jwt.decode(token, self._key_set(), algorithms=list(ALGORITHMS))
        except InvalidKeyIdError:
            decoded = jwt.decode(token, self._key_set(unknown=True), algorithms=list(ALGORITHMS))
        claims = decoded.claims
        jwt.JWTClaimsRegistry(
            leeway=LEEWAY,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._client},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True},
        ).validate(claims)
        if not isinstance(claims["sub"], str) or len(claims["sub"]) > 255:
            raise _unbelievable("names nobody")
        if not hmac.compare_digest(str(claims["nonce"]).encode(), nonce.encode()):
            raise _unbelievable("was made for another login")
        others = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if (others or "azp" in claims) and claims.get("azp") != self._client:
            raise _unbelievable("was made for another client")
        if claims["iat"] < jwt.JWTClaimsRegistry().now - OLDEST - LEEWAY:
            raise _unbelievable("was made too long ago")
        if "at_hash" in claims and not _binds(str(claims["at_hash"]), access_token, str(decoded.header.get("alg"))):
            raise _unbelievable("belongs to another access token")
        return dict(claims)

    def _key_set(self, *, unknown: bool = False) -> KeySet:
        """The keys; asked for anew where they are old, or a token names one that is not among them."""
        with self._lock:
            age = self._clock() - self._at
            if self._keys is None or age > KEYS_FRESH_SECONDS or (unknown and age > ASK_AGAIN_SECONDS):
                found = KeySet.import_key_set(self._fetch())  # type: ignore[arg-type]
                # a shared key has no place among the public ones: nothing must ever be believed by it
                usable: list[Key] = [
                    key for key in found.keys if not isinstance(key, OctKey) and key.get("use") in {None, "sig"}
                ]
                self._keys, self._at = KeySet(usable), self._clock()
            return self._keys


def _binds(at_hash: str, access_token: str, algorithm: str) -> bool:
    """Whether the token speaks of this access token: half of its digest, by the size of the signature's."""
    digest = hashlib.sha512 if algorithm in {"EdDSA", "Ed25519"} else getattr(hashlib, f"sha{algorithm[-3:]}")
    whole = digest(access_token.encode()).digest()
    return hmac.compare_digest(at_hash.encode(), _encoded(whole[: len(whole) // 2]).encode())


def _encoded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _unbelievable(what: str) -> Refused:
    return Refused(
        f"What the provider says about you {what}.",
        code="bad_id_token",
        hint="Log in anew. If it stays, whoever runs the platform looks at its clock and its `oidc_…` settings.",
    )
