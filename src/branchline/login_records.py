"""What operations need from the platform's memory of logins: sessions, logins under way, devices that wait for one.

What proves a login (the id in a cookie, a device code) is known by its digest alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol


@dataclass(frozen=True)
class NewSession:
    """A login of a browser. `owner` is what the register calls whoever it is.

    Either a member logged in with a provider, or somebody with a token, whose digest is in `token`: then what the
    token may do counts, and for as long as it may.
    """

    owner: str
    proof: str
    member: int | None = None
    token: str | None = None
    source: str = ""
    agent: str = ""


@dataclass(frozen=True)
class SessionRecord(NewSession):
    """A session that is good."""

    id: int = 0
    created_at: datetime = datetime.min
    expires_at: datetime = datetime.min
    last_seen_at: datetime = datetime.min


class Sessions(Protocol):
    """Logins of browsers, by the digest of their id."""

    def add(self, digest: str, session: NewSession, lifetime: timedelta) -> SessionRecord:
        """It is good for so long."""

    def by_digest(self, digest: str, idle: timedelta) -> SessionRecord | None:
        """The session, noting that it was used; None where it is unknown, over, or was not used for so long."""

    def of(self, owner: str, idle: timedelta) -> list[SessionRecord]:
        """Those that are good, newest first."""

    def end(self, digest: str) -> SessionRecord | None:
        """The session that was ended; None where there was none."""

    def end_all(self, owner: str) -> int:
        """End every session of an owner; return how many."""

    def prune(self, idle: timedelta) -> int:
        """Forget those that are over."""


@dataclass(frozen=True)
class PendingLogin:
    """A browser that was sent to a provider."""

    provider: str
    then: str


class PendingLogins(Protocol):
    """Logins under way, by the digest of what the browser keeps."""

    def add(self, digest: str, pending: PendingLogin, lifetime: timedelta) -> None: ...

    def take(self, digest: str) -> PendingLogin | None:
        """The login, which nobody gets a second time; None where it is unknown or too old."""

    def prune(self) -> int:
        """Forget those that are too old."""


class DeviceState(StrEnum):
    """How far a device's login is."""

    ASKED = "asked"
    CONFIRMED = "confirmed"
    DENIED = "denied"


@dataclass(frozen=True)
class DeviceLogin:
    """A device that asked to be let in. `grant` is what whoever confirmed it gives it."""

    id: int
    client: str
    host: str
    source: str
    created_at: datetime
    expires_at: datetime
    state: DeviceState = DeviceState.ASKED
    decided_by: str = ""
    grant: Mapping[str, Any] = field(default_factory=dict)


class DeviceLogins(Protocol):
    """Devices that wait for somebody to confirm them (RFC 8628)."""

    def add(self, device: str, user: str, client: str, host: str, source: str, lifetime: timedelta) -> DeviceLogin:
        """By the digests of both codes. Raises Conflict (`code_taken`) where a code of a device that waits is so."""

    def by_user_code(self, user: str) -> DeviceLogin | None:
        """The device whose code was typed, where nobody has decided yet and there is time left.

        Until the transaction ends nobody else decides.
        """

    def decide(self, device: DeviceLogin, state: DeviceState, by: str, grant: Mapping[str, Any]) -> None:
        """Confirm or deny it."""

    def poll(self, device: str, interval: timedelta) -> tuple[DeviceLogin | None, bool]:
        """How far it is, and whether it asks too often; None where it is unknown or its time is over.

        It asks too often where it did less than `interval` ago, and then must wait longer between any two from then on.
        Until the transaction ends nobody else polls it.
        """

    def remove(self, device: DeviceLogin) -> None:
        """Its codes are worth nothing any more."""

    def prune(self) -> int:
        """Forget those whose time is over."""
