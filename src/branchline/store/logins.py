"""Sessions, logins under way and devices, in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from branchline.domain.errors import Conflict
from branchline.login_records import DeviceLogin, DeviceState, NewSession, PendingLogin, SessionRecord
from branchline.store import login_tables as t

SLOWER_SECONDS = 5
"""What who asks too often must wait longer from then on (RFC 8628, 3.5)."""


def _over(column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    return column <= sa.func.now()


class SqlSessions:
    """Port `Sessions`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

    def add(self, digest: str, session: NewSession, lifetime: timedelta) -> SessionRecord:
        """It is good for so long."""
        new = t.session.insert().values(
            digest=digest,
            owner=session.owner,
            proof=session.proof,
            member_id=session.member,
            token_digest=session.token,
            source=session.source,
            agent=session.agent,
            expires_at=sa.func.now() + lifetime,
        )
        return _session(self._db.execute(new.returning(*t.session.c)).one())

    def by_digest(self, digest: str, idle: timedelta) -> SessionRecord | None:
        """The session, noting that it was used; None where it is unknown, over, or was not used for so long."""
        # once a minute is exact enough, and spares a write per request
        stale = (t.session.c.last_seen_at < sa.func.now() - timedelta(minutes=1)).label("stale")
        query = sa.select(t.session, stale).where(t.session.c.digest == digest, ~_ended(idle))
        row = self._db.execute(query).first()
        if row is None:
            return None
        if row.stale:
            seen = t.session.update().where(t.session.c.id == row.id)
            self._db.execute(seen.values(last_seen_at=sa.func.now()))
        return _session(row)

    def of(self, owner: str, idle: timedelta) -> list[SessionRecord]:
        """Those that are good, newest first."""
        query = sa.select(t.session).where(t.session.c.owner == owner, ~_ended(idle))
        return [_session(row) for row in self._db.execute(query.order_by(t.session.c.id.desc()))]

    def end(self, digest: str) -> SessionRecord | None:
        """The session that was ended; None where there was none."""
        gone = t.session.delete().where(t.session.c.digest == digest).returning(*t.session.c)
        row = self._db.execute(gone).first()
        return None if row is None else _session(row)

    def end_all(self, owner: str) -> int:
        """End every session of an owner; return how many."""
        return self._db.execute(t.session.delete().where(t.session.c.owner == owner)).rowcount

    def prune(self, idle: timedelta) -> int:
        """Forget those that are over."""
        return self._db.execute(t.session.delete().where(_ended(idle))).rowcount


def _ended(idle: timedelta) -> sa.ColumnElement[bool]:
    return _over(t.session.c.expires_at) | (t.session.c.last_seen_at < sa.func.now() - idle)


def _session(row: sa.Row[Any]) -> SessionRecord:
    return SessionRecord(
        owner=row.owner,
        proof=row.proof,
        member=row.member_id,
        token=row.token_digest,
        source=row.source,
        agent=row.agent,
        id=row.id,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_seen_at=row.last_seen_at,
    )


class SqlPendingLogins:
    """Port `PendingLogins`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

    def add(self, digest: str, pending: PendingLogin, lifetime: timedelta) -> None:
        """Good for so long."""
        until = sa.func.now() + lifetime
        new = t.pending_login.insert()
        self._db.execute(new.values(digest=digest, provider=pending.provider, then=pending.then, expires_at=until))

    def take(self, digest: str) -> PendingLogin | None:
        """The login, which nobody gets a second time; None where it is unknown or too old."""
        mine = t.pending_login.delete().where(t.pending_login.c.digest == digest)
        row = self._db.execute(mine.returning(*t.pending_login.c, _over(t.pending_login.c.expires_at).label("over")))
        found = row.first()
        return None if found is None or found.over else PendingLogin(found.provider, found.then)

    def prune(self) -> int:
        """Forget those that are too old."""
        return self._db.execute(t.pending_login.delete().where(_over(t.pending_login.c.expires_at))).rowcount


class SqlDeviceLogins:
    """Port `DeviceLogins`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

    def add(self, device: str, user: str, client: str, host: str, source: str, lifetime: timedelta) -> DeviceLogin:
        """By the digests of both codes. Raises Conflict (`code_taken`) where a code of a device that waits is so."""
        new = insert(t.device_login).values(
            device_digest=device,
            user_digest=user,
            client=client,
            host=host,
            source=source,
            expires_at=sa.func.now() + lifetime,
        )
        row = self._db.execute(new.on_conflict_do_nothing().returning(*t.device_login.c)).first()
        if row is None:
            raise Conflict("Another device waits with this code.", code="code_taken", hint="Ask for another code.")
        return _device(row)

    def by_user_code(self, user: str) -> DeviceLogin | None:
        """The device whose code was typed, where nobody has decided yet and there is time left."""
        undecided = (t.device_login.c.state == DeviceState.ASKED) & ~_over(t.device_login.c.expires_at)
        query = sa.select(t.device_login).where(t.device_login.c.user_digest == user, undecided)
        row = self._db.execute(query.with_for_update()).first()
        return None if row is None else _device(row)

    def decide(self, device: DeviceLogin, state: DeviceState, by: str, grant: Mapping[str, Any]) -> None:
        """Confirm or deny it."""
        change = t.device_login.update().where(t.device_login.c.id == device.id)
        self._db.execute(change.values(state=state, decided_by=by, grant=dict(grant)))

    def poll(self, device: str, interval: timedelta) -> tuple[DeviceLogin | None, bool]:
        """How far it is, and whether it asks too often; None where it is unknown or its time is over."""
        mine = t.device_login.c.device_digest == device
        due = t.device_login.c.polled_at + interval + t.device_login.c.slowed_by * sa.text("interval '1 second'")
        query = sa.select(t.device_login, (due > sa.func.clock_timestamp()).label("too_often"))
        row = self._db.execute(query.where(mine, ~_over(t.device_login.c.expires_at)).with_for_update()).first()
        if row is None:
            return None, False
        slower = t.device_login.c.slowed_by + (SLOWER_SECONDS if row.too_often else 0)
        change = t.device_login.update().where(t.device_login.c.id == row.id)
        self._db.execute(change.values(polled_at=sa.func.clock_timestamp(), slowed_by=slower))
        return _device(row), bool(row.too_often)

    def remove(self, device: DeviceLogin) -> None:
        """Its codes are worth nothing any more."""
        self._db.execute(t.device_login.delete().where(t.device_login.c.id == device.id))

    def prune(self) -> int:
        """Forget those whose time is over."""
        return self._db.execute(t.device_login.delete().where(_over(t.device_login.c.expires_at))).rowcount


def _device(row: sa.Row[Any]) -> DeviceLogin:
    return DeviceLogin(
        row.id,
        row.client,
        row.host,
        row.source,
        row.created_at,
        row.expires_at,
        DeviceState(row.state),
        row.decided_by,
        row.grant,
    )
