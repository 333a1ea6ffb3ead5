"""Identities towards the config store: short-lived JWTs, signed with the key of the server or of a tier."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from branchline.domain.config import Secret
from branchline.domain.environment import DEVELOP, Environment
from branchline.domain.errors import PlatformBroke
from branchline.domain.layers import COMMON, Layer

ISSUER = "branchline"
SERVER_AUDIENCE = "branchline-server"
RUNTIME_AUDIENCE = "branchline-runtime"
SERVER_SUBJECT = "server"
_NO_BASE = "_none"
LIFETIME = 20
"""Seconds between a token's `iat` and `exp`: it is used at once, for one login. The store does not remember whom it has
seen: whoever takes a token from the wire can use it again until then, and for no more than its one environment."""

_CLOCK_SKEW = 5
"""Seconds by which `iat` lies in the past, because the store allows no leeway and may run on another machine."""


@dataclass(frozen=True)
class Identity:
    """What a runner says of itself to read one environment's config: exactly its own path and its parents."""

    tier: str
    project: str
    env: str
    base: str
    parent: str

    @classmethod
    def of(cls, environment: Environment, layers: Collection[Layer]) -> Identity:
        """The identity that reads these layers of an environment and no others."""
        names = {layer.name for layer in layers}
        return cls(
            str(environment.tier),
            environment.project,
            environment.name,
            base=COMMON if COMMON in names else _NO_BASE,
            parent=DEVELOP if DEVELOP in names else environment.name,
        )

    @property
    def subject(self) -> str:
        """All that it claims: the store keeps one set of facts per subject, so that two identities which shared one
        would see each other's config."""
        return f"{self.tier}:{self.project}:{self.env}:{self.base}:{self.parent}"


class Signer:
    """Signs with a private key: an EC P-256 key in PEM, read anew for each token. Safe to share between threads."""

    def __init__(self, key: Callable[[], Secret]) -> None:
        self._key = key

    def server(self) -> str:
        """A token that says: I am the server."""
        return self._sign({"sub": SERVER_SUBJECT, "aud": SERVER_AUDIENCE})

    def runtime(self, identity: Identity) -> str:
        """A token that says: I act for this one environment."""
        return self._sign({**asdict(identity), "sub": identity.subject, "aud": RUNTIME_AUDIENCE})

    def _sign(self, claims: dict[str, str]) -> str:
        """Raises PlatformBroke (`key_unreadable`) where the key is none."""
        issued = int(time.time()) - _CLOCK_SKEW
        times = {"iat": issued, "nbf": issued, "exp": issued + LIFETIME}
        return jwt.encode(
            {"alg": "ES256"},
            {**claims, **times, "iss": ISSUER, "jti": uuid.uuid4().hex},
            _parsed(self._key()),
            ["ES256"],
        )


def _parsed(key: Secret) -> ECKey:
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
    return parsed
