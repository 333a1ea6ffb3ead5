"""Patience: for how long, and in which pauses, something is tried again while a server does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0


class Patience:
    """Counts from the first failure, by the clock: an attempt that waits in vain for an answer counts as well."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._ends: float | None = None
        self._pause = _FIRST_PAUSE

    def next_pause(self) -> float | None:
        """After a failure: the seconds to wait before the next attempt, longer each time; None when it is enough."""
        now = self._clock()
        if self._ends is None:
            self._ends = now + self._seconds
        if now >= self._ends:
            return None
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
        # One attempt at the very end: a server that came back while we slept is not missed.
        return min(pause, self._ends - now)
