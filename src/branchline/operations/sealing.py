"""Sealing: the register's head is signed at intervals and at each deployment's end, and noted elsewhere."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from branchline.domain.chain import ORIGIN, Check, Head, Link, Seal, statement
from branchline.domain.errors import PlatformBroke
from branchline.operations.chores import Chore
from branchline.operations.walking import in_order
from branchline.ports import Notary
from branchline.records import Store

LOOK_EVERY = 2.0
"""Seconds between two looks whether there is something to seal."""

_PAUSE = 30.0
"""Seconds until it is tried again where it could not be sealed."""


class Sealing:
    """Signs whatever head the register has, once the rows since the one that was noted last are seen to lead to it.

    `every` is how many seconds a row may wait for its seal; the end of a deployment is sealed within seconds.
    """

    def __init__(self, store: Store, notary: Notary, every: float) -> None:
        self._store = store
        self._notary = notary
        self._every = every
        self._due_at = 0.0
        self._not_before = 0.0

    def chore(self) -> Chore:
        """What a server should do again and again."""
        return Chore("seal-register", LOOK_EVERY, self.look)

    def look(self) -> None:
        """Seal the head where that is due.

        Raises PlatformBroke (`register_broken`) rather than sign what does not fit.
        """
        if time.monotonic() < self._not_before or not self._due():
            return
        self._not_before = time.monotonic() + _PAUSE
        self.seal()
        self._not_before, self._due_at = 0.0, time.monotonic() + self._every

    def seal(self) -> Seal | None:
        """Seal the head now; None where there is nothing to seal. May be killed at any line."""
        head = self._lead_to_head(self._notary.noted() or Head(0, ORIGIN))
        if not head.seq:
            return None
        at = datetime.now(UTC)
        version, signature = self._notary.sign(statement(head, at))
        seal = Seal(head.seq, head.hash, at, version, signature)
        with self._store.transaction() as records:
            records.register.seal(seal)
        self._notary.note(head)
        return seal

    def _due(self) -> bool:
        with self._store.transaction() as records:
            head, newest = records.register.head(), records.register.newest_seal()
            if head is None or (newest is not None and newest.seq >= head.seq):
                return False
            return newest is None or time.monotonic() >= self._due_at or records.register.ended_since(newest.seq)

    def _lead_to_head(self, noted: Head) -> Head:
        """The newest row, which the rows from `noted` on must lead to."""
        check = Check(lambda _: True, start=noted)
        if noted.seq and not self._is_there(noted):
            raise _broken(f"row {noted.seq} is not what was noted of it")
        for item in in_order(self._store, noted.seq):
            if isinstance(item, Link):
                check.link(item)
        if faults := check.end():
            raise _broken(str(faults[0]))
        return check.head

    def _is_there(self, noted: Head) -> bool:
        with self._store.transaction() as records:
            return any((link.seq, link.hash) == noted for link in records.register.links(noted.seq - 1, noted.seq, 1))


def _broken(what: str) -> PlatformBroke:
    return PlatformBroke(
        f"The register is not sealed, because it was tampered with: {what}.",
        code="register_broken",
        hint="`branchline audit verify` says what does not fit.",
    )
