"""Logins in memory: sessions, logins under way, devices."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from branchline.domain.errors import Conflict
from branchline.login_records import DeviceLogin, DeviceState, NewSession, PendingLogin, SessionRecord

_ids = itertools.count(1)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Waiting:
    """A device with its codes, and when it asked last."""

    user: str
    login: DeviceLogin
    polled: datetime | None = None
    slowed_by: int = 0


@dataclass
class LoginTables:
    """What a store holds of logins."""

    sessions: dict[str, SessionRecord] = field(default_factory=dict)
    pending: dict[str, tuple[PendingLogin, datetime]] = field(default_factory=dict)
    devices: dict[str, Waiting] = field(default_factory=dict)


class MemorySessions:
    def __init__(self, tables: LoginTables) -> None:
        self._t = tables

    def add(self, digest: str, session: NewSession, lifetime: timedelta) -> SessionRecord:
        now = _now()
        made = SessionRecord(
            **vars(session), id=next(_ids), created_at=now, expires_at=now + lifetime, last_seen_at=now
        )
        self._t.sessions[digest] = made
        return made

    def by_digest(self, digest: str, idle: timedelta) -> SessionRecord | None:
        found = self._t.sessions.get(digest)
        if found is None or _session_over(found, idle):
            return None
        self._t.sessions[digest] = replace(found, last_seen_at=_now())
        return found

    def of(self, owner: str, idle: timedelta) -> list[SessionRecord]:
        mine = [one for one in self._t.sessions.values() if one.owner == owner and not _session_over(one, idle)]
        return sorted(mine, key=lambda one: -one.id)

    def end(self, digest: str) -> SessionRecord | None:
        return self._t.sessions.pop(digest, None)

    def end_all(self, owner: str) -> int:
        gone = [digest for digest, one in self._t.sessions.items() if one.owner == owner]
        for digest in gone:
            del self._t.sessions[digest]
        return len(gone)

    def prune(self, idle: timedelta) -> int:
        gone = [digest for digest, one in self._t.sessions.items() if _session_over(one, idle)]
        for digest in gone:
            del self._t.sessions[digest]
        return len(gone)


def _session_over(session: SessionRecord, idle: timedelta) -> bool:
    return session.expires_at <= _now() or session.last_seen_at < _now() - idle


class MemoryPendingLogins:
    def __init__(self, tables: LoginTables) -> None:
        self._t = tables

    def add(self, digest: str, pending: PendingLogin, lifetime: timedelta) -> None:
        self._t.pending[digest] = (pending, _now() + lifetime)

    def take(self, digest: str) -> PendingLogin | None:
        pending, until = self._t.pending.pop(digest, (None, _now()))
        return pending if until > _now() else None

    def prune(self) -> int:
        gone = [digest for digest, (_, until) in self._t.pending.items() if until <= _now()]
        for digest in gone:
            del self._t.pending[digest]
        return len(gone)


class MemoryDeviceLogins:
    def __init__(self, tables: LoginTables) -> None:
        self._t = tables

    def add(self, device: str, user: str, client: str, host: str, source: str, lifetime: timedelta) -> DeviceLogin:
        if any(one.user == user for one in self._t.devices.values()):
            raise Conflict("Another device waits with this code.", code="code_taken")
        made = DeviceLogin(next(_ids), client, host, source, _now(), _now() + lifetime)
        self._t.devices[device] = Waiting(user, made)
        return made

    def by_user_code(self, user: str) -> DeviceLogin | None:
        for one in self._t.devices.values():
            if one.user == user and one.login.state is DeviceState.ASKED and one.login.expires_at > _now():
                return one.login
        return None

    def decide(self, device: DeviceLogin, state: DeviceState, by: str, grant: Mapping[str, Any]) -> None:
        for one in self._t.devices.values():
            if one.login.id == device.id:
                one.login = replace(one.login, state=state, decided_by=by, grant=json.loads(json.dumps(grant)))

    def poll(self, device: str, interval: timedelta) -> tuple[DeviceLogin | None, bool]:
        one = self._t.devices.get(device)
        if one is None or one.login.expires_at <= _now():
            return None, False
        too_often = one.polled is not None and one.polled + interval + timedelta(seconds=one.slowed_by) > _now()
        one.polled, one.slowed_by = _now(), one.slowed_by + (5 if too_often else 0)
        return one.login, too_often

    def remove(self, device: DeviceLogin) -> None:
        self._t.devices = {code: one for code, one in self._t.devices.items() if one.login.id != device.id}

    def prune(self) -> int:
        before = len(self._t.devices)
        self._t.devices = {code: one for code, one in self._t.devices.items() if one.login.expires_at > _now()}
        return before - len(self._t.devices)
