"""Personal tokens: made, shown once, recognised by their digest, revoked."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

from branchline.domain.access import Actor, Permission, Role
from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.errors import BadInput, Conflict, Unauthenticated
from branchline.operations.gate import Gate
from branchline.records import Store
from branchline.wire import TokenView

PREFIX = "bl_"
"""Lets people and secret scanners recognise a token that ended up where it should not be."""

BOOTSTRAP = "bootstrap"


class Tokens:
    """Who holds which token."""

    def __init__(self, store: Store, gate: Gate) -> None:
        self._store = store
        self._gate = gate

    def authenticate(self, presented: str) -> Actor:
        """The actor behind a token; raises Unauthenticated for anything else."""
        if presented.startswith(PREFIX) and presented.isascii():
            # The digest is looked up in an index: the time that takes tells nothing about the token itself.
            with self._store.transaction() as records:
                token = records.tokens.by_digest(_digest(presented))
            if token is not None:
                return Actor(token.name, f"token {token.name}", token.role)
        raise Unauthenticated(
            "This needs a valid token.",
            hint="Run `branchline login`, or set BRANCHLINE_TOKEN. An admin makes one with `branchline token create`.",
        )

    def create(self, actor: Actor, name: str, role: Role) -> str:
        """Make a token and return it, this one time."""
        self._gate.require(actor, Permission.PLATFORM)
        if not name.strip() or not name.isprintable():
            raise BadInput(
                "A token needs a name that can be read.", code="bad_name", hint="Name whom it is for: `ada`, `ci`."
            )
        return self._make(actor.name, name, role)

    def list(self, actor: Actor) -> list[TokenView]:
        """Every token, without the tokens themselves."""
        self._gate.require(actor, Permission.PLATFORM)
        with self._store.transaction() as records:
            return [TokenView(**vars(token)) for token in records.tokens.all()]

    def revoke(self, actor: Actor, name: str) -> None:
        """From now on the token is worth nothing."""
        self._gate.require(actor, Permission.PLATFORM)
        with self._store.transaction() as records:
            records.tokens.remove(name)
            records.register.add(AuditEvent(Kind.TOKEN_REVOKED, actor.name, detail={"token": name}))

    def bootstrap(self, keep: Callable[[str], None]) -> bool:
        """Make the first admin's token where there is no token at all; say whether there was need for one.

        `keep` stores it before it becomes valid: a crash between the two leaves a token that is worth nothing, and the
        next start makes another, rather than a valid one that nobody knows.
        """
        with self._store.transaction() as records:
            if records.tokens.all():
                return False
        try:
            self._make("platform", BOOTSTRAP, Role.ADMIN, keep)
        except Conflict:
            return False
        return True

    def _make(self, by: str, name: str, role: Role, keep: Callable[[str], None] | None = None) -> str:
        token = PREFIX + secrets.token_urlsafe(32)
        with self._store.transaction() as records:
            records.tokens.add(name, role, _digest(token))
            records.register.add(AuditEvent(Kind.TOKEN_CREATED, by, detail={"token": name, "role": role}))
            if keep is not None:
                keep(token)
        return token


def _digest(token: str) -> str:
    # 256 random bits cannot be guessed, so a plain digest is enough: there is nothing to stretch.
    return hashlib.sha256(token.encode()).hexdigest()
