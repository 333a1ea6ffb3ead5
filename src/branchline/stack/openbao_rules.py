"""Who may do what in OpenBao: mounts, policies and roles, and how they get there.

| identity | key | may |
|---|---|---|
| operator | keys/operator.pem | everything; used to bring these rules up to date, and for nothing else |
| config-writer | keys/server.pem | read and write nonprod; write production's values and read only its keys |
| runtime, nonprod | keys/nonprod.pem | read the config of the one nonprod environment that its token names |
| runtime, production | keys/production.pem | read the config of the one production environment that its token names |
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey

from branchline.layout import Layout

TIERS = ("nonprod", "production")
MAX_VERSIONS = 500
"""A deployment pins the version it ran with; a pruned version cannot be rolled back to."""

Request = tuple[str, str, dict[str, Any]]

OPERATOR_POLICY = 'path "*" { capabilities = ["create","read","update","patch","delete","list","scan","sudo"] }'

CONFIG_WRITER_POLICY = """\
path "nonprod/data/*"       { capabilities = ["create", "update", "patch", "read"] }
path "nonprod/subkeys/*"    { capabilities = ["read"] }
path "nonprod/metadata/*"   { capabilities = ["read", "list", "scan", "delete"] }
path "production/data/*"    { capabilities = ["create", "update", "patch"] }
path "production/subkeys/*" { capabilities = ["read"] }
path "production/metadata/*" { capabilities = ["read", "list"] }
"""


def runtime_policy(tier: str, accessor: str) -> str:
    """What a runner's token of this tier may read: paths are filled in from the token that it logged in with."""
    token = f"identity.entity.aliases.{accessor}.metadata"
    paths = [f"{tier}/data/{{{{{token}.project}}}}/env/{{{{{token}.env}}}}"]
    if tier == "nonprod":  # what nonprod environments inherit; production inherits nothing
        paths += [f"{tier}/data/{{{{{token}.project}}}}/_common", f"{tier}/data/{{{{{token}.project}}}}/env/develop"]
    return "".join(f'path "{path}" {{ capabilities = ["read"] }}\n' for path in paths)


def role(audience: str, policy: str, lifetime: str, **bounds: object) -> dict[str, Any]:
    """A JWT role. Tokens are single-purpose and short-lived, hence no leeway for clocks: it is one machine."""
    return {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": [audience],
        "token_policies": [policy],
        "token_ttl": lifetime,
        "token_max_ttl": lifetime,
        "token_no_default_policy": True,
        "clock_skew_leeway": "-1",
        "expiration_leeway": "-1",
        **bounds,
    }


OPERATOR_ROLE = role("branchline-operator", "operator", "5m", bound_subject="operator")
CONFIG_WRITER_ROLE = role("branchline-server", "config-writer", "15m", bound_subject="server")


def runtime_role(tier: str) -> dict[str, Any]:
    """The role of a tier's runners; project and environment are claims that the policy's paths are made of."""
    return role(
        "branchline-runtime",
        f"runtime-{tier}",
        "10m",
        bound_claims={"tier": tier},
        claim_mappings={"project": "project", "env": "env"},
    )


def operator_requests(layout: Layout) -> str:
    """The requests of the self-initialisation, in the server's own notation. They run once and can never be mended."""
    requests: list[Request] = [
        ("auth", "sys/auth/jwt-operator", {"type": "jwt"}),
        ("keys", "auth/jwt-operator/config", _keys(layout, "operator")),
        ("policy", "sys/policies/acl/operator", {"policy": OPERATOR_POLICY}),
        ("role", "auth/jwt-operator/role/operator", OPERATOR_ROLE),
    ]
    return "".join(
        f'  request "{name}" {{\n    operation = "update"\n    path = "{path}"\n    data = {_hcl(data)}\n  }}\n'
        for name, path, data in requests
    )


def fingerprint(layout: Layout) -> str:
    """Changes when the rules do."""
    wanted = [_rules(layout, dict.fromkeys(TIERS, "accessor")), MAX_VERSIONS]
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def arrange(address: str, layout: Layout) -> None:
    """Make mounts, policies and roles what they should be; may be repeated. Raises httpx.HTTPError."""
    with httpx.Client(base_url=f"{address}/v1/", timeout=10.0, trust_env=False) as api:
        api.headers["X-Vault-Token"] = _log_in(api, layout)
        mounts, logins = _get(api, "sys/mounts"), _get(api, "sys/auth")
        for tier in TIERS:
            if f"{tier}/" not in mounts:
                _post(api, f"sys/mounts/{tier}", {"type": "kv", "options": {"version": "2"}})
        for name in ("server", *TIERS):
            if f"jwt-{name}/" not in logins:
                _post(api, f"sys/auth/jwt-{name}", {"type": "jwt"})
        logins = _get(api, "sys/auth")
        for _, path, data in _rules(layout, {tier: logins[f"jwt-{tier}/"]["accessor"] for tier in TIERS}):
            _post(api, path, data)


def _rules(layout: Layout, accessors: dict[str, str]) -> list[Request]:
    rules: list[Request] = [
        ("keys", "auth/jwt-server/config", _keys(layout, "server")),
        ("policy", "sys/policies/acl/config-writer", {"policy": CONFIG_WRITER_POLICY}),
        ("role", "auth/jwt-server/role/config-writer", CONFIG_WRITER_ROLE),
    ]
    for tier in TIERS:
        rules += [
            ("keys", f"auth/jwt-{tier}/config", _keys(layout, tier)),
            ("policy", f"sys/policies/acl/runtime-{tier}", {"policy": runtime_policy(tier, accessors[tier])}),
            ("role", f"auth/jwt-{tier}/role/runtime", runtime_role(tier)),
            ("versions", f"{tier}/config", {"max_versions": MAX_VERSIONS}),
        ]
    return rules


def _keys(layout: Layout, name: str) -> dict[str, Any]:
    public = (layout.home / "keys" / f"{name}.pub").read_text()
    return {"jwt_validation_pubkeys": [public], "jwt_supported_algs": ["ES256"]}


def _log_in(api: httpx.Client, layout: Layout) -> str:
    now = int(time.time())
    claims = {"sub": "operator", "aud": "branchline-operator", "iat": now, "nbf": now, "exp": now + 60}
    signed = jwt.encode({"alg": "ES256"}, claims, ECKey.import_key(layout.key("operator.pem").reveal()))
    answer = api.post("auth/jwt-operator/login", json={"role": "operator", "jwt": signed})
    answer.raise_for_status()
    return str(answer.json()["auth"]["client_token"])


def _get(api: httpx.Client, path: str) -> dict[str, Any]:
    answer = api.get(path)
    answer.raise_for_status()
    return dict(answer.json()["data"])


def _post(api: httpx.Client, path: str, data: dict[str, Any]) -> None:
    api.post(path, json=data).raise_for_status()


def _hcl(value: object) -> str:
    """A value in HCL, which writes objects with equals signs and is otherwise JSON."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_hcl(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_hcl, value)) + "]"
    return json.dumps(value)
