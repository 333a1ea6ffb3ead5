"""Names: what may be called what, and how a ref becomes part of a hostname."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from branchline.domain.errors import BadInput

NAME = r"^[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?$"
"""Projects, environments, services and databases: a DNS label of at most 32 characters."""

ENVIRONMENT_KEY = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
"""Names of environment variables, as POSIX shells accept them."""


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it may name a project, environment, service or database; raise BadInput otherwise."""
    if len(name) > 32 or not re.match(NAME, name) or name.endswith("\n"):
        shown = name if len(name) <= 40 else name[:40] + "…"
        raise BadInput(
            f"{shown!r} cannot be the {what}.",
            code="bad_name",
            hint="Use 1 to 32 of a-z, 0-9 and '-', starting with a letter and ending in a letter or digit.",
        )
    return name


LONGEST_LABEL = 100
"""Characters that the name of a person, group or token has at the most."""

RESERVED = frozenset({"platform", "(nobody)", "bootstrap", "operator"})
"""Actors of the register that are no person and no machine of anybody's: nobody else is to look like them.

A person called `operator` would also stand in the way of the token that lets the operator back in.
"""


def check_label(name: str, what: str) -> str:
    """Return `name` if a group may be called so; raise BadInput (`bad_name`) otherwise."""
    if not name.strip(".") or name != name.strip() or not name.isprintable():  # dots alone are no part of an address
        raise BadInput(
            f"The {what} must be readable, without space around it.", code="bad_name", hint="Like `ada` or `ci`."
        )
    return name


def check_handle(name: str, what: str) -> str:
    """Return `name` if a person or a token may be called so; raise BadInput (`bad_name`) otherwise.

    It is one part of an address: with a `/` in it, it could be taken for another address.
    """
    check_label(name, what)
    if "/" in name:
        raise BadInput(f"The {what} cannot hold a `/`.", code="bad_name", hint="Like `ada` or `ci`.")
    return name


def check_actor(name: str, what: str) -> str:
    """Return `name` if a person or a machine may act under it; raise BadInput (`bad_name`, `reserved_name`)."""
    if alike(name) in RESERVED:
        raise BadInput(
            f"{name} cannot be the {what}: the register calls the platform itself so.",
            code="reserved_name",
            hint="Choose another name.",
        )
    return check_handle(name, what)


def alike(name: str) -> str:
    """What two names have in common that a reader takes for one: without case, and without kinds of the same letter."""
    return unicodedata.normalize("NFKC", name).casefold()


def handle(name: str) -> str:
    """What of a name that somebody else chose can be a person's or a token's here; empty where nothing can."""
    plain = "".join(sign for sign in name if sign.isprintable()).replace("/", "-")[:LONGEST_LABEL].strip()
    return plain if plain.strip(".") else ""


def slug(ref: str) -> str:
    """Turn a branch name into a name that `check_name` accepts; distinct refs give distinct slugs.

    A ref that is a valid name already stays as it is. Any other keeps what is readable of it and gets the
    first eight hex digits of its SHA-256, so that case, unicode and length never make two refs collide
    (`-` plus eight hex digits at the end is reserved for these, hence refs of that shape are hashed too).
    """
    if re.match(NAME, ref) and len(ref) <= 32 and not re.search(r"-[0-9a-f]{8}$", ref):
        return ref
    plain = unicodedata.normalize("NFKD", ref).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    readable = re.sub(r"^[^a-z]+", "", readable)[:23].strip("-") or "ref"
    return f"{readable}-{hashlib.sha256(ref.encode()).hexdigest()[:8]}"
