"""Sessions: logins of browsers, kept on the server, so that they can be looked at and ended from anywhere."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import timedelta

from branchline.domain.access import Actor, Permission
from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.errors import Unauthenticated
from branchline.login_records import NewSession, SessionRecord
from branchline.operations.gate import Gate
from branchline.operations.members import actor_of
from branchline.operations.tokens import Tokens, digest_of
from branchline.people_records import Member
from branchline.records import Records, Store
from branchline.wire_logins import SessionView

LIFETIME = timedelta(hours=12)
"""A working day. Then one logs in anew, and groups count as they are by then."""

IDLE = timedelta(hours=2)
"""A session that nobody uses for so long is over. A page of the dashboard that is open uses it every few seconds."""

AGENT_LENGTH = 200
ID_BYTES = 32


class Sessions:
    """Who is logged in, in which browsers."""

    def __init__(self, store: Store, gate: Gate, tokens: Tokens) -> None:
        self._store = store
        self._gate = gate
        self._tokens = tokens

    def begin_with_token(self, presented: str, source: str, agent: str) -> tuple[str, Actor]:
        """Log a browser in with a token, which the session then hangs on; return the session's id, and who it is.

        Raises Unauthenticated where the token is not good.
        """
        actor = self._tokens.authenticate(presented, source)
        new = NewSession(actor.name, f"session by {actor.proof}", actor.member, digest_of(presented), source, agent)
        with self._store.transaction() as records:
            return self.begin(records, new), actor

    def begin_as(self, records: Records, member: Member, proof: str, source: str, agent: str) -> str:
        """Log a browser in as a member whom a provider vouched for, within a transaction; return the session's id."""
        return self.begin(records, NewSession(member.name, proof, member.id, None, source, agent))

    def begin(self, records: Records, session: NewSession) -> str:
        """Always a new id: what a browser had before it logged in is worth nothing afterwards."""
        made = secrets.token_urlsafe(ID_BYTES)
        agent = "".join(sign for sign in session.agent if sign.isprintable())[:AGENT_LENGTH]
        new = NewSession(session.owner, session.proof, session.member, session.token, session.source, agent)
        records.sessions.add(digest_of(made), new, LIFETIME)
        detail = {"agent": agent} if agent else {}
        records.register.add(_event(Kind.LOGIN_SUCCEEDED, new, session.source, detail))
        return made

    def authenticate(self, session: str, source: str) -> Actor:
        """Who is logged in with this session; raises Unauthenticated where it is unknown or over."""
        with self._store.transaction() as records:
            found = records.sessions.by_digest(digest_of(session), IDLE) if session else None
            if found is not None and found.token is None and found.member is not None:
                member = records.members.by_id(found.member)
                if member.disabled_at is None:
                    return actor_of(records, member.id, member.name, found.proof, source=source)
        if found is not None and found.token is not None:
            return self._tokens.recognise(found.token, source, session=True)
        raise Unauthenticated("You are not logged in, or not any more.", hint="Log in.")

    def end(self, session: str, source: str) -> None:
        """Log this browser out; nothing happens where it is not logged in."""
        with self._store.transaction() as records:
            if (gone := records.sessions.end(digest_of(session))) is not None:
                records.register.add(_event(Kind.LOGIN_ENDED, gone, source, {"sessions": 1}))

    def mine(self, actor: Actor, current: str = "") -> list[SessionView]:
        """Where the actor is logged in, newest first."""
        self._check_wide(actor)
        with self._store.transaction() as records:
            found = records.sessions.of(actor.name, IDLE)
            this = records.sessions.by_digest(digest_of(current), IDLE) if current else None
        return [_view(one, current=this is not None and this.id == one.id) for one in found]

    def end_mine(self, actor: Actor) -> int:
        """Log the actor out of every browser; return of how many."""
        self._check_wide(actor)
        return self._end_all(actor, actor.name)

    def end_all_of(self, actor: Actor, name: str) -> int:
        """Log a member out of every browser; return of how many. Raises NotFound (`unknown_member`)."""
        self._gate.require(actor, Permission.PLATFORM)
        with self._store.transaction() as records:
            records.members.get(name)
        return self._end_all(actor, name)

    def _check_wide(self, actor: Actor) -> None:
        """Whoever has no role yet may look after their own sessions, but no token that is narrowed to other things."""
        if not actor.scope.admits(Permission.OWN_TOKENS, None):
            self._gate.among(actor, Permission.OWN_TOKENS)

    def _end_all(self, actor: Actor, owner: str) -> int:
        with self._store.transaction() as records:
            if count := records.sessions.end_all(owner):
                records.register.add(actor.event(Kind.LOGIN_ENDED, detail={"of": owner, "sessions": count}))
        return count

    def prune(self) -> None:
        """Forget what is over: sessions, logins that nobody finished, codes of devices."""
        with self._store.transaction() as records:
            records.sessions.prune(IDLE)
            records.pending_logins.prune()
            records.device_logins.prune()


def _event(kind: Kind, session: NewSession, source: str, detail: Mapping[str, object]) -> AuditEvent:
    return AuditEvent(kind, session.owner, detail=dict(detail), proof=session.proof, source=source)


def _view(session: SessionRecord, *, current: bool) -> SessionView:
    return SessionView(
        proof=session.proof,
        source=session.source,
        agent=session.agent,
        created_at=session.created_at,
        last_seen_at=session.last_seen_at,
        expires_at=session.expires_at,
        current=current,
    )
