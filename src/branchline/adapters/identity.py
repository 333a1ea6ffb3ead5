"""Identities towards the config store: short-lived JWTs, signed with the key of the server or of a tier."""

from __future__ import annotations

import time
import uuid

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from branchline.domain.config import Secret
from branchline.domain.environment import Environment
from branchline.domain.errors import PlatformBroke

ISSUER = "branchline"
SERVER_AUDIENCE = "branchline-server"
RUNTIME_AUDIENCE = "branchline-runtime"
SERVER_SUBJECT = "server"
LIFETIME = 60
"""Seconds between a token's `iat` and `exp`: it is used at once, for one login."""

_CLOCK_SKEW = 5
"""Seconds by which `iat` lies in the past, because the store allows no leeway and may run on another machine."""


class Signer:
    """Signs with one private key: an EC P-256 key in PEM. Safe to share between threads."""

    def __init__(self, key: Secret) -> None:
        """Raises PlatformBroke (`key_unreadable`) where the text is no such key."""
        try:
            parsed = ECKey.import_key(key.reveal())
            fits = parsed.is_private and parsed.curve_name == "P-256"
        except (JoseError, ValueError, TypeError):
            fits = False
        if not fits:
            raise PlatformBroke(
                "A signing key of the platform is not an EC P-256 private key.",
                code="key_unreadable",
                hint="Restore the file under `keys/` in the platform's home from a backup.",
            )
        self._key = parsed

    def server(self) -> str:
        """A token that says: I am the server."""
        return self._sign({"sub": SERVER_SUBJECT, "aud": SERVER_AUDIENCE})

    def runtime(self, environment: Environment) -> str:
        """A token that says: I act for this one environment.

        The subject names tier, project and environment. The store keeps one set of facts per subject, so two
        environments that shared one would see each other's config.
        """
        tier, project, name = str(environment.tier), environment.project, environment.name
        claims = {"sub": f"{tier}:{project}:{name}", "tier": tier, "project": project, "env": name}
        return self._sign({**claims, "aud": RUNTIME_AUDIENCE})

    def _sign(self, claims: dict[str, str]) -> str:
        issued = int(time.time()) - _CLOCK_SKEW
        times = {"iat": issued, "nbf": issued, "exp": issued + LIFETIME}
        return jwt.encode(
            {"alg": "ES256"}, {**claims, **times, "iss": ISSUER, "jti": uuid.uuid4().hex}, self._key, ["ES256"]
        )
