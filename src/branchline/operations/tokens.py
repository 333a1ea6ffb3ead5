"""Tokens: made, shown once, known by their digest, revoked. A person's may what they may, a machine's has a role."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from branchline.domain.access import EVERYWHERE, Actor, Permission, Role, Scope
from branchline.domain.audit import Kind
from branchline.domain.errors import BadInput, Conflict, NotFound, Refused, Unauthenticated
from branchline.domain.names import check_actor, check_handle
from branchline.operations.gate import Gate
from branchline.people_records import Member, TokenRecord
from branchline.records import Records, Store
from branchline.wire_people import NewToken, TokenShown, TokenView

PREFIX = "bl_"
"""Lets people and secret scanners recognise a token that ended up where it should not be."""

BOOTSTRAP = "bootstrap"
OPERATOR = "operator"
"""The tokens of the first start, and of whoever has the platform's own machine."""

PERSONAL_DAYS = 90
"""For which a person's token is good, where nothing else is asked for."""


class Tokens:
    """Who holds which token."""

    def __init__(self, store: Store, gate: Gate) -> None:
        self._store = store
        self._gate = gate

    def authenticate(self, presented: str, source: str = "") -> Actor:
        """The actor behind a token, who comes from that address; raises Unauthenticated for anything else."""
        if presented.startswith(PREFIX) and presented.isascii():
            return self.recognise(digest_of(presented), source)
        raise _not_valid()

    def recognise(self, digest: str, source: str = "", *, session: bool = False) -> Actor:
        """The actor behind a token of this digest, or a browser's `session` that was begun with it; raises as above."""
        # The digest is looked up in an index: the time that takes tells nothing about the token itself.
        with self._store.transaction() as records:
            found = records.tokens.by_digest(digest)
        if found is not None and not _expired(found[0]):
            return _actor(*found, source, session=session)
        if found is not None:
            raise Unauthenticated(
                f"The token {found[0].name} has expired.",
                code="token_expired",
                hint="Log in anew with `branchline login`, or have another one made.",
            )
        raise _not_valid()

    def create(self, actor: Actor, new: NewToken) -> TokenShown:
        """Make a token and return it, this one time.

        With a role it is a machine's, else a member's: the actor's own where none is named. Raises BadInput:
        `bad_name`, `reserved_name`, `whose_token` where neither can be; Conflict: `token_exists`, `name_taken`,
        `disabled`; Refused: `wider_scope` where it could do more than the token that it is asked for with.
        """
        if new.role is not None or (new.member is not None and new.member != actor.name) or actor.member is None:
            self._gate.require(actor, Permission.PLATFORM)
        else:
            self._gate.among(actor, Permission.OWN_TOKENS)
        if new.role is None:
            check_handle(new.name, "name of a token")
        else:
            check_actor(new.name, "name of a machine")
        mine = new.role is None and new.member is None and actor.member is not None
        if not mine and (new.role is None) == (new.member is None):
            raise BadInput(
                "A token is either a machine's, with a role, or a member's.",
                code="whose_token",
                hint="Say --role for a machine, or --for for a member.",
            )
        if new.role is Role.ADMIN and new.projects is not None:
            raise BadInput(
                "An admin is one of the whole platform.",
                code="admin_everywhere",
                hint="Leave --project out, or choose another role.",
            )
        scope = _narrowed(new, actor)
        if mine:
            for project in new.projects or ():  # whether there is such a project is told to whoever has a role in it
                self._gate.require(actor, Permission.OWN_TOKENS, project=project)
        with self._store.transaction() as records:
            for project in scope.projects or ():
                records.projects.get(project)
            member = None if new.role else records.members.get(new.member or actor.name)
            token, made = self._make(records, actor, new.name, member, new.role, scope, _end(new, actor))
        return TokenShown(**_shown(made), token=token)

    def issue(self, records: Records, actor: Actor, name: str, days: int) -> TokenShown:
        """Make a token for a member who lets a device in, within a transaction; one of theirs of that name makes room.

        It can no more than what the member let it in with, and does not outlive that. Raises Conflict (`disabled`), and
        Refused (`access_denied`) where what they let it in with was revoked meanwhile.
        """
        member = records.members.get(actor.name)
        theirs = records.tokens.all([member.id])
        if actor.token is not None and all(one.id != actor.token for one in theirs):
            raise Refused(
                "What this device was let in with was revoked meanwhile.",
                code="access_denied",
                hint="Run `branchline login` again.",
            )
        if known := next((one for one in theirs if one.name == name), None):
            self._take_away(records, actor, known)
        end = datetime.now(UTC) + timedelta(days=days)
        end = end if actor.until is None else min(end, actor.until)
        token, made = self._make(records, actor, name, member, None, actor.scope, end)
        return TokenShown(**_shown(made), token=token)

    def end(self, actor: Actor, presented: str) -> None:
        """Revoke the token that the actor has at hand: whoever logs out needs no right to."""
        with self._store.transaction() as records:
            if (found := records.tokens.by_digest(digest_of(presented))) is not None:
                self._take_away(records, actor, found[0])

    def list(self, actor: Actor) -> list[TokenView]:
        """The actor's own tokens, and for an admin every token; never the tokens themselves."""
        if not actor.may(Permission.PLATFORM):
            self._gate.among(actor, Permission.OWN_TOKENS)
        mine = None if actor.may(Permission.PLATFORM) else [actor.member or 0]
        with self._store.transaction() as records:
            return [TokenView(**_shown(token)) for token in records.tokens.all(mine)]

    def revoke(self, actor: Actor, name: str, member: str | None = None) -> None:
        """From now on the token is worth nothing: a member's, or by its name alone one's own or a machine's."""
        with self._store.transaction() as records:
            token = _named(records, actor, name, member)
        if token is None or token.member is None or token.member != actor.member:
            self._gate.require(actor, Permission.PLATFORM)
        else:
            self._gate.among(actor, Permission.OWN_TOKENS)
        with self._store.transaction() as records:
            if token is None:
                token = records.tokens.get(name, records.members.get(member).id if member else None)
            self._take_away(records, actor, token)

    def bootstrap(self, keep: Callable[[str], None]) -> bool:
        """Make the first admin's token where nobody has a token or a role; say whether there was need for one.

        `keep` stores it before it becomes valid: a crash between the two leaves a token that is worth nothing, and the
        next start makes another, rather than a valid one that nobody knows.
        """
        platform = Actor("platform", "the first start")
        try:
            with self._store.transaction() as records:
                if records.tokens.all() or records.members.grants():
                    return False  # who has revoked the first one does not find it again after a restart
                token, _ = self._make(records, platform, BOOTSTRAP, None, Role.ADMIN, Scope(), None)
                keep(token)
        except Conflict:
            return False
        return True

    def recover(self, who: str, keep: Callable[[str], None]) -> None:
        """Make an admin's token for whoever has this machine, in place of the one that they made before."""
        operator = Actor(OPERATOR, f"account {who} of the platform's machine")
        with self._store.transaction() as records:
            with suppress(NotFound):
                self._take_away(records, operator, records.tokens.get(OPERATOR, None))
            token, _ = self._make(records, operator, OPERATOR, None, Role.ADMIN, Scope(), None)
            keep(token)

    def _take_away(self, records: Records, by: Actor, token: TokenRecord) -> None:
        records.tokens.remove(token)
        records.register.add(by.event(Kind.TOKEN_REVOKED, detail=_told(token)))

    def _make(
        self,
        records: Records,
        by: Actor,
        name: str,
        member: Member | None,
        role: Role | None,
        scope: Scope,
        end: datetime | None,
    ) -> tuple[str, TokenRecord]:
        token = PREFIX + secrets.token_urlsafe(32)
        whose = member.id if member else None
        made = records.tokens.add(name, digest_of(token), member=whose, role=role, scope=scope, expires_at=end)
        records.register.add(by.event(Kind.TOKEN_CREATED, detail=_told(made)))
        return token, made


def _actor(token: TokenRecord, roles: Mapping[str, Role], source: str, *, session: bool) -> Actor:
    if token.role is not None:
        roles = dict.fromkeys(token.scope.projects or [EVERYWHERE], token.role)
    name = token.member_name or token.name
    proof = f"session by token {token.name}" if session else f"token {token.name}"
    return Actor(name, proof, roles, token.scope, source, token.member, token.expires_at, token.id)


def _named(records: Records, actor: Actor, name: str, member: str | None) -> TokenRecord | None:
    """The actor's own token of that name; None where it is somebody else's that is meant."""
    if actor.member is None or member not in {None, actor.name}:
        return None
    return next((one for one in records.tokens.all([actor.member]) if one.name == name), None)


def _narrowed(new: NewToken, actor: Actor) -> Scope:
    """What the new token is to be good for: where nothing is asked for, as much as the one that asks."""
    scope = Scope(
        actor.scope.projects if new.projects is None else frozenset(new.projects),
        actor.scope.permissions if new.permissions is None else frozenset(new.permissions),
    )
    if not scope.within(actor.scope):
        raise Refused(
            "With a token that is narrowed no wider one can be made.",
            code="wider_scope",
            hint="`branchline whoami` says what it is narrowed to. Log in, and make it with all of your rights.",
        )
    return scope


def _end(new: NewToken, actor: Actor) -> datetime | None:
    """When it expires: a token that was made with another does not outlive that."""
    days = new.days or (None if new.role else PERSONAL_DAYS)
    wanted = datetime.now(UTC) + timedelta(days=days) if days else None
    ends = [one for one in (wanted, actor.until if new.role is None else None) if one is not None]
    return min(ends, default=None)


def _not_valid() -> Unauthenticated:
    return Unauthenticated(
        "This needs a valid token.",
        hint="Run `branchline login`, or set BRANCHLINE_TOKEN. `branchline token create` makes one.",
    )


def _expired(token: TokenRecord) -> bool:
    return token.expires_at is not None and token.expires_at <= datetime.now(UTC)


def _shown(token: TokenRecord) -> dict[str, object]:
    return {
        "name": token.name,
        "member": token.member_name or None,
        "role": token.role,
        "projects": _listed(token.scope.projects),
        "permissions": _listed(token.scope.permissions),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
    }


def _told(token: TokenRecord) -> dict[str, object]:
    """What the register says of it."""
    about = {
        "token": token.name,
        "member": token.member_name,
        "role": token.role,
        "projects": _listed(token.scope.projects),
        "permissions": _listed(token.scope.permissions),
        "expires_at": token.expires_at.isoformat() if token.expires_at else None,
    }
    return {name: value for name, value in about.items() if value}


def _listed(values: frozenset[str] | frozenset[Permission] | None) -> Sequence[str] | None:
    return None if values is None else sorted(values)


def digest_of(token: str) -> str:
    """What is kept of a token, or of anything else that proves a login."""
    # 256 random bits cannot be guessed, so a plain digest is enough: there is nothing to stretch.
    return hashlib.sha256(token.encode()).hexdigest()
