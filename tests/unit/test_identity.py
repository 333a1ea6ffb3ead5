"""Identities: what the tokens say, and which keys make them."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import ECKey

from branchline.adapters.identity import Identity, Signer
from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Inherits, tier_of
from branchline.domain.errors import PlatformBroke
from branchline.domain.layers import layers_of

KEY = ECKey.generate_key("P-256")


def pem(key: ECKey, private: bool = True) -> Secret:
    return Secret(key.as_pem(private=private).decode())


def identity(name: str, inherits: Inherits) -> Identity:
    place = Environment(1, "shop", name, tier_of(name), 1)
    return Identity.of(place, layers_of("shop", name, inherits))


def said(token: str) -> dict[str, Any]:
    decoded = jwt.decode(token, KEY, algorithms=["ES256"])
    assert decoded.header == {"alg": "ES256", "typ": "JWT"}
    return dict(decoded.claims)


@pytest.mark.parametrize(
    ("name", "inherits", "tier", "base", "parent"),
    [
        ("login", Inherits.DEVELOP, "nonprod", "_common", "develop"),
        ("develop", Inherits.COMMON, "nonprod", "_common", "develop"),
        ("staging", Inherits.COMMON, "nonprod", "_common", "staging"),
        ("staging", Inherits.NOTHING, "nonprod", "_none", "staging"),
        ("production", Inherits.DEVELOP, "production", "_none", "production"),
    ],
)
def test_a_runner_says_for_whom_it_acts(name: str, inherits: Inherits, tier: str, base: str, parent: str) -> None:
    claims = said(Signer(partial(pem, KEY)).runtime(identity(name, inherits)))
    times = {key: claims.pop(key) for key in ("iat", "nbf", "exp", "jti")}
    assert claims == {
        "iss": "branchline",
        "aud": "branchline-runtime",
        "sub": f"{tier}:shop:{name}:{base}:{parent}",
        "tier": tier,
        "project": "shop",
        "env": name,
        "base": base,
        "parent": parent,
    }
    assert times["exp"] - times["iat"] == 20
    assert times["iat"] == times["nbf"] <= time.time() < times["exp"]


def test_the_server_says_that_it_is_the_server() -> None:
    claims = said(Signer(partial(pem, KEY)).server())
    assert (claims["sub"], claims["aud"]) == ("server", "branchline-server")
    assert not {"tier", "project", "env"} & set(claims)


def test_no_token_is_like_another() -> None:
    signer = Signer(partial(pem, KEY))
    assert len({said(signer.runtime(identity("develop", Inherits.COMMON)))["jti"] for _ in range(50)}) == 50


def test_another_key_does_not_confirm_a_token() -> None:
    with pytest.raises(BadSignatureError):
        jwt.decode(Signer(partial(pem, ECKey.generate_key("P-256"))).server(), KEY, algorithms=["ES256"])


@pytest.mark.parametrize(
    "text",
    [
        Secret(""),
        Secret("not a key"),
        pem(KEY, private=False),
        pem(ECKey.generate_key("P-384")),
        Secret("-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n-----END PRIVATE KEY-----\n"),
    ],
)
def test_other_keys_are_a_clear_error(text: Secret) -> None:
    with pytest.raises(PlatformBroke) as caught:
        Signer(lambda: text).server()
    assert caught.value.code == "key_unreadable"
    assert caught.value.hint
    assert "MIG" not in caught.value.sentence + caught.value.hint
    assert caught.value.__context__ is None
