"""Logins that failed, in the register: told once for each source and minute, however many there are."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from branchline.domain.audit import AuditEvent, Kind
from branchline.records import Store

WINDOW = 60.0
"""Seconds in which a source's failures share one line."""

MOST_LINES = 60
"""Lines a window, of all sources together: a flood that comes from everywhere fills no disk either."""

MOST_SOURCES = 10_000

NOBODY = "(nobody)"
"""The actor where nobody knows who it was."""


class FailedLogins:
    """Counts what it does not write down, and writes that with the next line of its source.

    The counts are in memory: what a server has not told when it ends is in its log, request by request.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._written: OrderedDict[str, float] = OrderedDict()
        self._untold: dict[str, int] = {}
        self._window = 0.0
        self._lines = 0

    def note(self, method: str, code: str, source: str, who: str = "") -> None:
        """Somebody failed to log in by this method. What they tried with is not asked for, so it cannot be told.

        `who` is what their provider calls them, where that is known: who that is here, nobody has said.
        """
        untold = self._due(source)
        if untold is None:
            return
        told = {"method": method, "code": code, "called": who, "untold": untold}
        detail = {name: value for name, value in told.items() if value}
        event = AuditEvent(Kind.LOGIN_FAILED, NOBODY, detail=detail, proof=method, source=source)
        with self._store.transaction() as records:
            records.register.add(event)

    def _due(self, source: str) -> int | None:
        """How many failures of the source nobody was told of, where now is the time for a line; else None."""
        with self._lock:
            now = self._clock()
            if now - self._window >= WINDOW:
                self._window, self._lines = now, 0
            if now - self._written.get(source, -WINDOW) < WINDOW or self._lines >= MOST_LINES:
                self._untold[source] = self._untold.get(source, 0) + 1
                if len(self._untold) > MOST_SOURCES:
                    self._untold.clear()
                return None
            self._lines += 1
            self._written[source] = now
            self._written.move_to_end(source)
            if len(self._written) > MOST_SOURCES:
                self._written.popitem(last=False)
            return self._untold.pop(source, 0)
