"""Makes a Vault what it should be, the embedded one or another: looks first, and writes only what differs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from branchline.domain.errors import Conflict

Request = tuple[str, dict[str, Any]]
"""A path, and what is written there."""

Mounted = dict[str, Mapping[str, Any]]
"""What is mounted, by the path at which that was asked for: `sys/mounts/nonprod`, `sys/auth/jwt-server`."""

Rules = Callable[[Mapping[str, str]], list[Request]]
"""What comes after the mounts: policies name a login mount by its accessor, which the server makes up."""

_LOGINS_END = 1.0
"""Seconds within which a login that the server is at has ended."""

_LISTS = ("sys/mounts", "sys/auth")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Vault(Protocol):
    """Somebody who may set it up."""

    def read(self, path: str) -> Mapping[str, Any] | None:
        """What is there; None where nothing is."""

    def write(self, path: str, data: Mapping[str, Any]) -> None:
        """Write these values there; those that are not named stay."""


class Outcome(StrEnum):
    """What became of one path."""

    MADE = "made"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


def bring_about(
    vault: Vault,
    mounts: Sequence[Request],
    rules: Rules,
    tell: Callable[[Outcome, str], None] = lambda *_: None,
    rotated: Collection[str] = (),
) -> None:
    """Make the mounts and write the rules, where they are not so already; `tell` hears of each path.

    Takes a second more where it changes the keys of a login, or where these are being `rotated`: whoever wrote them
    may have been killed within that second. Raises Conflict (`mount_in_the_way`) before anything is
    written, and what `vault` raises.
    """
    there = mounted(vault)
    if wrong := [words for path, data in mounts if (words := _in_the_way(path, data, there))]:
        raise Conflict(
            f"The Vault has other things mounted where the platform's must be: {'; '.join(wrong)}.",
            code="mount_in_the_way",
            hint="Move or disable them there, or use another Vault. Nothing was changed.",
        )
    for path, data in mounts:
        if path in there:
            tell(Outcome.UNCHANGED, path)
        else:
            vault.write(path, data)
            tell(Outcome.MADE, path)
    unsettled = []
    for path, data in rules(_accessors(mounted(vault))):
        found = vault.read(path)
        same = found is not None and not differs(data, found)
        if same:
            tell(Outcome.UNCHANGED, path)
        else:
            vault.write(path, data)
            tell(Outcome.MADE if found is None else Outcome.CHANGED, path)
        if found is not None and "jwt_validation_pubkeys" in data and (path in rotated or not same):
            unsettled.append((path, data))
    if unsettled:
        # A login that had looked up the old keys just before puts them into the server's memory just after, where they
        # stay. Writing empties that memory, and nobody is under way for so long.
        time.sleep(_LOGINS_END)
        for path, data in unsettled:
            vault.write(path, data)


def mounted(vault: Vault) -> Mounted:
    """Everything that is mounted."""
    return {
        f"{kind}/{name.rstrip('/')}": about
        for kind in _LISTS
        for name, about in (vault.read(kind) or {}).items()
        if isinstance(about, dict)
    }


def _accessors(there: Mounted) -> dict[str, str]:
    prefix = "sys/auth/"
    return {path.removeprefix(prefix): str(one["accessor"]) for path, one in there.items() if path.startswith(prefix)}


def differs(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether the server holds anything else for what is wanted; what else it holds does not matter."""
    return any(_plain(item) != _plain(found.get(key)) for key, item in wanted.items())


def _in_the_way(path: str, wanted: Mapping[str, Any], there: Mounted) -> str:
    """What occupies a path that is wanted for something else, in words; nothing where it is free or as wanted."""
    _, _, name = path.rpartition("/")
    if found := there.get(path):
        kind, version = found.get("type"), (found.get("options") or {}).get("version")
        if kind != wanted["type"]:
            return f"{name}/ is of type {kind}, not {wanted['type']}"
        if "options" in wanted and version != wanted["options"]["version"]:
            return f"{name}/ is {kind} version {version or 1}, not {wanted['options']['version']}"
        return ""
    inner = [other for other in there if other.startswith(f"{path}/")]
    return f"{inner[0].removeprefix(path.removesuffix(name))}/ lies within {name}/" if inner else ""


def _plain(item: object) -> object:
    """The same for one meaning: servers tell durations in seconds, and texts with or without a newline at the end."""
    if isinstance(item, list):
        return [_plain(one) for one in item]
    if isinstance(item, str) and (duration := re.fullmatch(r"(-?\d+)([smh]?)", item)):
        return int(duration[1]) * _UNITS[duration[2]]
    return item.strip() if isinstance(item, str) else item
