"""A Vault of somebody else's, OpenBao's or HashiCorp's: gets what the embedded one has, or is told what that is.

The operator's door is left out: whoever runs that Vault lets us in with a token, for this once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from branchline.adapters.vault_admin import VaultAdmin
from branchline.domain.addresses import server_address
from branchline.domain.config import Secret
from branchline.domain.errors import BranchlineError, Conflict, PlatformBroke, Refused
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import vault_hcl
from branchline.stack.openbao import JSON_STRINGS
from branchline.stack.openbao_rules import MOUNTS, TIERS, rotated, rules
from branchline.stack.vault_setup import Mounted, Outcome, Request, Vault, bring_about, mounted

_LOOK, _WRITE = ("read",), ("create", "read", "update")
_POLICIES = "sys/policies/acl/"
_REVOKE = "auth/token/revoke-self"

_HEAD = """\
# What `branchline vault setup` writes, to OpenBao and to HashiCorp's Vault alike, where it is not so already.
# Each block is a POST of its values, as JSON, to /v1/ and its path; `bao write` and `vault write` do the same.
"""
_LIMIT = f"an OpenBao takes layers of up to some 500 keys, unless its listener has `{JSON_STRINGS}`"
_ACCESSORS = """\
# {names} stand for what the server calls these mounts:
# `bao auth list` and `vault auth list` show it as their accessor. Only a policy with the right one opens anything.
"""
_ALLOWED = """\
# The token needs no more than this policy, which is not written:
"""


def check_address(address: str) -> str:
    """Return the address without a slash at its end; raise BadInput (`bad_address`) where it is none of a Vault."""
    hint = "Write it like https://vault.example.com:8200."
    return server_address(address, of="a Vault", code="bad_address", hint=hint)


def script(settings: Settings) -> str:
    """All that would be written, as HCL. Needs the platform's keys, and neither a server nor a token.

    Raises PlatformBroke (`not_set_up`, `key_unreadable`).
    """
    requests = _requests(_layout(settings))
    names = [_stand_in(f"jwt-{tier}") for tier in TIERS]
    allowed = vault_hcl.policy(_needed(requests))
    return "\n".join(
        [
            _HEAD + _ACCESSORS.format(names=" and ".join(names)) + f"# Not among these: {_LIMIT}.\n",
            _ALLOWED + "".join(f"#   {line}\n" for line in allowed.splitlines()),
            *(vault_hcl.written(path, data) for path, data in requests),
        ]
    )


def set_up(
    settings: Settings,
    address: str,
    token: Secret,
    tell: Callable[[str, str], None],
    *,
    keep_token: bool = False,
) -> int:
    """Write what is missing or different, then revoke the token; return how many paths were written.

    `tell` hears what became of each path. What fails leaves the token good, and can be repeated. Raises BadInput
    (`bad_address`, `bad_token`), Conflict (`mount_in_the_way`, `policy_in_the_way`: nothing was changed), Refused
    (`vault_token_refused`), and PlatformBroke where there are no keys or the Vault does not work.
    """
    layout = _layout(settings)
    vault = VaultAdmin(check_address(address), token)
    outcomes: list[Outcome] = []

    def count(outcome: Outcome, path: str) -> None:
        outcomes.append(outcome)
        tell(outcome, path)

    try:
        tell("version", vault.greet())
        tell("note", _LIMIT)  # nothing that can be asked for says how it is there
        there = mounted(vault)
        _check_rights(vault, there, _requests(layout), keep_token)
        _check_policies(vault, there)
        bring_about(vault, MOUNTS, lambda accessors: rules(layout, accessors), count, rotated(layout))
    except BranchlineError as error:
        error.add_note("The token was not revoked.")
        raise
    if not keep_token:
        vault.revoke()
        tell("revoked", "the token")
    return sum(outcome is not Outcome.UNCHANGED for outcome in outcomes)


def _layout(settings: Settings) -> Layout:
    """The home, once it has keys."""
    layout = Layout.load(settings.home)
    for name in ("server", *TIERS):
        key = layout.home / "keys" / f"{name}.pub"
        try:
            key.read_text()
        except OSError as error:
            raise PlatformBroke(
                f"The public key {name}.pub cannot be read: {error.strerror}.",
                code="key_unreadable",
                hint=f"`branchline up` makes {key}; run this as the same user.",
            ) from None
    return layout


def _requests(layout: Layout) -> list[Request]:
    return [*MOUNTS, *rules(layout, {f"jwt-{tier}": _stand_in(f"jwt-{tier}") for tier in TIERS})]


def _stand_in(mount: str) -> str:
    return f"ACCESSOR_OF_{mount.replace('-', '_').upper()}"


def _needed(requests: Sequence[Request]) -> list[tuple[str, Sequence[str]]]:
    """What a token must be allowed, path by path."""
    makes = ("create", "update")
    needed: list[tuple[str, Sequence[str]]] = [("sys/mounts", _LOOK), ("sys/auth", _LOOK)]
    for path, _ in requests:
        if path.startswith("sys/auth/"):
            needed.append((path, (*makes, "sudo")))
        else:
            needed.append((path, makes if path.startswith("sys/mounts/") else _WRITE))
    return [*needed, ("auth/token/lookup-self", _LOOK), (_REVOKE, ("update",))]


def _check_rights(vault: VaultAdmin, there: Mounted, requests: Sequence[Request], keep_token: bool) -> None:
    """Better refused before the first change than in the middle. Where the token may not even ask, it is tried."""
    needed = {
        path: able for path, able in _needed(requests) if path not in there and not (keep_token and path == _REVOKE)
    }
    may = vault.capabilities(list(needed))
    lacking = [
        path for path in needed if path in may and "root" not in may[path] and not {*needed[path]} <= {*may[path]}
    ]
    if lacking:
        raise Refused(
            f"The token lacks rights for {', '.join(lacking)}. Nothing was changed.",
            code="vault_token_refused",
            hint="`branchline vault setup --dry-run` shows the policy that the token needs.",
        )


def _check_policies(vault: Vault, there: Mounted) -> None:
    """A policy of the same name that was there before our doors is somebody else's."""
    doors = {"config-writer": "jwt-server", **{f"runtime-{tier}": f"jwt-{tier}" for tier in TIERS}}
    foreign = [
        policy
        for policy, door in doors.items()
        if f"sys/auth/{door}" not in there and vault.read(_POLICIES + policy) is not None
    ]
    if foreign:
        raise Conflict(
            f"The Vault has policies of the platform's names, but not its login mounts: {', '.join(foreign)}.",
            code="policy_in_the_way",
            hint="Where nothing else uses them, delete them there and try again. Nothing was changed.",
        )
