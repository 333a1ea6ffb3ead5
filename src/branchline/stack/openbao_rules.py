"""Who may do what in OpenBao, or another Vault: mounts, policies and roles, and how they get into the embedded one.

| identity | key | may |
|---|---|---|
| operator | keys/operator.pem | everything; used to bring these rules up to date, and for nothing else |
| config-writer | keys/server.pem | read and write nonprod; write production's values and read only its keys |
| the same | the same | have the register's head signed, and note it |
| runtime, nonprod | keys/nonprod.pem | read the layers of the one nonprod environment that its token names |
| runtime, production | keys/production.pem | read the config of the one production environment that its token names |

Only the embedded OpenBao knows the operator. A Vault of somebody else's gets the rest from `external_vault`: nothing of
that may be what either OpenBao or HashiCorp's Vault lacks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from branchline.layout import Layout
from branchline.stack import vault_hcl
from branchline.stack.asking import ask
from branchline.stack.part import NotReady
from branchline.stack.vault_setup import Request, bring_about

TIERS = ("nonprod", "production")
MAX_VERSIONS = 500
"""A deployment pins the version it ran with; a pruned version cannot be rolled back to."""

MOUNTS: list[Request] = [
    *((f"sys/mounts/{tier}", {"type": "kv", "options": {"version": "2"}}) for tier in TIERS),
    ("sys/mounts/register", {"type": "kv", "options": {"version": "2"}}),
    ("sys/mounts/register-signer", {"type": "transit"}),
    *((f"sys/auth/jwt-{name}", {"type": "jwt"}) for name in ("server", *TIERS)),
]
"""Where config lies, where the register is sealed, and the doors to both."""

REGISTER_KEY: Request = (
    "register-signer/keys/head",
    {"type": "ed25519", "exportable": False, "allow_plaintext_backup": False},
)

OPERATOR_POLICY = 'path "*" { capabilities = ["create","read","update","patch","delete","list","scan","sudo"] }'

CONFIG_WRITER_POLICY = """\
path "nonprod/data/*"        { capabilities = ["create", "update", "read"] }
path "nonprod/metadata/*"    { capabilities = ["read"] }
path "production/data/*"     { capabilities = ["create", "update", "patch"] }
path "production/subkeys/*"  { capabilities = ["read"] }
path "production/metadata/*" { capabilities = ["read"] }
path "register/data/head"         { capabilities = ["create", "update", "read"] }
path "register-signer/sign/head"  { capabilities = ["update"] }
path "register-signer/keys/head"  { capabilities = ["read"] }
"""


def runtime_policy(tier: str, accessor: str) -> str:
    """What a runner's token of this tier may read: paths are filled in from the token that it logged in with."""
    project, base, parent, env = (
        f"{{{{identity.entity.aliases.{accessor}.metadata.{claim}}}}}" for claim in ("project", "base", "parent", "env")
    )
    paths = [f"{tier}/data/{project}/env/{env}"]
    if tier == "nonprod":  # what a nonprod environment inherits; production inherits nothing
        paths += [f"{tier}/data/{project}/{base}", f"{tier}/data/{project}/env/{parent}"]
    return "".join(f'path "{path}" {{ capabilities = ["read"] }}\n' for path in paths)


def role(audience: str, policy: str, lifetime: str, **bounds: object) -> dict[str, Any]:
    """A JWT role. Tokens are single-purpose and short-lived, hence no leeway: they allow for clocks themselves."""
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
        claim_mappings={claim: claim for claim in ("project", "env", "base", "parent")},
    )


def operator_requests(layout: Layout) -> str:
    """The requests of the self-initialisation, in the server's own notation. They run once and can never be mended."""
    requests: list[Request] = [
        ("sys/auth/jwt-operator", {"type": "jwt"}),
        ("auth/jwt-operator/config", _keys(layout, "operator")),
        ("sys/policies/acl/operator", {"policy": OPERATOR_POLICY}),
        ("auth/jwt-operator/role/operator", OPERATOR_ROLE),
    ]
    return "".join(
        f'  request "r{number}" {{\n    operation = "update"\n    path = "{path}"\n'
        f"    data = {vault_hcl.value(data)}\n  }}\n"
        for number, (path, data) in enumerate(requests)
    )


def fingerprint(layout: Layout) -> str:
    """Changes when the rules do."""
    wanted = [_keys(layout, "operator"), rules(layout, {f"jwt-{tier}": "accessor" for tier in TIERS}), MOUNTS]
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def arrange(server: str, layout: Layout) -> None:
    """Make mounts, policies and roles what they should be, at `host:port`; may be repeated.

    Raises NotReady where the server does not take them (yet).
    """
    operators: Request = ("auth/jwt-operator/config", _keys(layout, "operator"))
    bring_about(
        _Operator(server, log_in_as_operator(server, layout)),
        MOUNTS,
        lambda accessors: [operators, *rules(layout, accessors)],
        rotated=rotated(layout),
    )


def ask_as_operator(server: str, layout: Layout, path: str, data: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """Read a path of the server at `host:port` with the operator's rights, or write `data` there.

    Raises NotReady where it does not take that (yet).
    """
    return _ask(server, path, log_in_as_operator(server, layout), data)


def rules(layout: Layout, accessors: Mapping[str, str]) -> list[Request]:
    """What is written once the mounts are there; `accessors` says what the server calls the tiers' doors."""
    wanted: list[Request] = [
        ("auth/jwt-server/config", _keys(layout, "server")),
        ("sys/policies/acl/config-writer", {"policy": CONFIG_WRITER_POLICY}),
        ("auth/jwt-server/role/config-writer", CONFIG_WRITER_ROLE),
        ("register/config", {"max_versions": MAX_VERSIONS, "cas_required": True}),
        REGISTER_KEY,
    ]
    for tier in TIERS:
        wanted += [
            (f"auth/jwt-{tier}/config", _keys(layout, tier)),
            (f"sys/policies/acl/runtime-{tier}", {"policy": runtime_policy(tier, accessors[f"jwt-{tier}"])}),
            (f"auth/jwt-{tier}/role/runtime", runtime_role(tier)),
            (f"{tier}/config", {"max_versions": MAX_VERSIONS}),
        ]
    return wanted


def rotated(layout: Layout) -> set[str]:
    """Where the keys are written that are being rotated."""
    halves = (layout.home / "keys").glob("*.next.pub")
    return {f"auth/jwt-{half.name.removesuffix('.next.pub')}/config" for half in halves}


def _keys(layout: Layout, name: str) -> dict[str, Any]:
    """Every public key whose private half may be in use: two while a key is being rotated."""
    public = [(layout.home / "keys" / f"{name}.pub").read_text()]
    with contextlib.suppress(FileNotFoundError):
        public.append((layout.home / "keys" / f"{name}.next.pub").read_text())
    return {"jwt_validation_pubkeys": list(dict.fromkeys(public)), "jwt_supported_algs": ["ES256"]}


def log_in_as_operator(server: str, layout: Layout) -> str:
    """A token for five minutes of the operator's rights at `host:port`. Raises NotReady where it is not given.

    Raises PlatformBroke (`key_unreadable`) for whoever may not read the operator's key.
    """
    from joserfc import jwt  # noqa: PLC0415 a fifth of a second, for a login that is rarely needed
    from joserfc.jwk import ECKey  # noqa: PLC0415

    now = int(time.time())
    claims = {"sub": "operator", "aud": "branchline-operator", "iat": now, "nbf": now, "exp": now + 60}
    signed = jwt.encode({"alg": "ES256"}, claims, ECKey.import_key(layout.key("operator.pem").reveal()))
    answer = ask(server, "/v1/auth/jwt-operator/login", {"role": "operator", "jwt": signed}, limit=10.0)
    if answer.status != 200:
        raise NotReady(f"it does not let the operator in (HTTP {answer.status})")
    return str(answer.data["auth"]["client_token"])


@dataclass(frozen=True)
class _Operator:
    """Sets up the embedded OpenBao."""

    server: str
    token: str

    def read(self, path: str) -> Mapping[str, Any] | None:
        return _ask(self.server, path, self.token, fine=(200, 404)) or None

    def write(self, path: str, data: Mapping[str, Any]) -> None:
        _ask(self.server, path, self.token, data)


def _ask(
    server: str, path: str, token: str, data: Mapping[str, Any] | None = None, fine: Collection[int] = (200, 204)
) -> Mapping[str, Any]:
    answer = ask(server, f"/v1/{path}", data, {"X-Vault-Token": token}, limit=10.0)
    if answer.status not in fine:
        raise NotReady(f"it does not take {path} (HTTP {answer.status})")
    found: Mapping[str, Any] = answer.data.get("data") or {}
    return found
