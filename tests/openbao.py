"""What tests do at OpenBao besides the adapters: log in with any token, ask as the operator."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey

from branchline.adapters.vault import VaultConfigReader, VaultConfigWriter
from branchline.domain.config import Secret
from branchline.domain.environment import Tier
from branchline.domain.layers import HIDDEN, Change, Layer
from branchline.layout import Layout
from branchline.stack.openbao import OpenBao


class Caller:
    """Speaks HTTP with OpenBao, under one token."""

    def __init__(self, url: str, token: str = "") -> None:
        self._http = httpx.Client(base_url=f"{url}/v1/", headers={"X-Vault-Token": token}, trust_env=False, timeout=30)

    def ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        """One request."""
        kind = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else None
        return self._http.request(method, path, json=body or None, headers=kind)

    def log_in(self, mount: str, role: str, token: str) -> httpx.Response:
        """Try to log in with a JWT."""
        return self.ask("POST", f"auth/{mount}/login", role=role, jwt=token)


def claims(**others: Any) -> dict[str, Any]:
    """Claims of a token that is good for a minute."""
    now = int(time.time())
    return {"iss": "branchline", "iat": now, "nbf": now, "exp": now + 60, **others}


def operator(url: str, layout: Layout) -> Caller:
    """Whoever may do everything."""
    signed = jwt.encode(
        {"alg": "ES256"},
        claims(sub="operator", aud="branchline-operator"),
        ECKey.import_key(layout.key("operator.pem").reveal()),
    )
    answer = Caller(url).log_in("jwt-operator", "operator", signed)
    assert answer.status_code == 200, answer.text
    return Caller(url, answer.json()["auth"]["client_token"])


class RealConfigStore:
    """OpenBao with all who come to it."""

    def __init__(self, openbao: OpenBao, layout: Layout) -> None:
        self.url = openbao.endpoint
        self.layout = layout

    def reader(self, tier: Tier) -> VaultConfigReader:
        """A runner's."""
        return VaultConfigReader(self.url, tier, partial(self.layout.key, f"{tier}.pem"))

    def writer(self) -> VaultConfigWriter:
        """The server's."""
        return VaultConfigWriter(self.url, partial(self.layout.key, "server.pem"))

    def put(self, project: str, name: str, values: Mapping[str, str | None]) -> int:
        """Write over what there is, as tests arrange things: None hides a key (or, in production, takes it out)."""
        layer, writer = Layer(project, name), self.writer()
        changes: dict[str, Change] = {key: HIDDEN if one is None else Secret(one) for key, one in values.items()}
        return writer.write(layer, changes, writer.keys(layer).version)

    def delete(self, layer: Layer, version: int) -> None:
        """Delete a version, as an operator can."""
        path = f"{layer.tier}/delete/{layer.path}"
        answer = operator(self.url, self.layout).ask("POST", path, versions=[version])
        assert answer.status_code == 204, answer.text

    def prune(self, layer: Layer, left: int) -> None:
        """Write the newest version once more and have all but so many forgotten."""
        caller, path = operator(self.url, self.layout), f"{layer.tier}/config"
        before = caller.ask("GET", path).json()["data"]["max_versions"]
        try:
            assert caller.ask("POST", path, max_versions=left).status_code == 204
            newest = caller.ask("GET", f"{layer.tier}/data/{layer.path}").json()["data"]["data"]
            assert caller.ask("POST", f"{layer.tier}/data/{layer.path}", data=newest).status_code == 200
        finally:
            assert caller.ask("POST", path, max_versions=before).status_code == 204

    def go_down(self) -> None:
        """From here on it is looked for where nobody listens."""
        self.url = "http://127.0.0.1:1"
