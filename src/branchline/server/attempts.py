"""How often who may try to get in: counted in the memory of this server, by the address that a request comes from."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import cast

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.requests import Request

from branchline.domain.errors import TooMany
from branchline.server.source import group_of, site_of

FAILURES = RateLimitItemPerMinute(20, namespace="failures")
"""Logins that failed, with whatever. What succeeds costs nothing."""

LOGINS = RateLimitItemPerMinute(30, namespace="logins")
"""Browsers that are sent to a provider."""

SESSIONS = RateLimitItemPerMinute(30, namespace="sessions")
"""Browsers that log in with one and the same token, from wherever: each is a line of the register."""

DEVICES = RateLimitItemPerMinute(10, namespace="devices")
"""Devices that ask for a code."""

SITES = {
    one.namespace: RateLimitItemPerMinute(8 * one.amount, namespace=f"{one.namespace}-site")
    for one in (FAILURES, LOGINS, DEVICES)
}
"""As much may come from all networks of a site together."""

_REMEMBERED = 2000
_REMEMBERED_SECONDS = 3600.0
_MOST_SOURCES = 20_000


class Attempts:
    """Raises TooMany (`too_many_attempts`, 429) where somebody tries too often.

    Behind one address there may be a whole office. A token that was good lately is therefore let through even where
    others at its address fail all the time: guessing gains nothing by that, and nobody can lock their neighbours out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._storage = MemoryStorage()
        self._limiter = MovingWindowRateLimiter(self._storage)
        self._clock = clock
        self._good: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.RLock()

    @property
    def sources(self) -> int:
        """How many sources are remembered."""
        return len(self._storage.events)

    def spend(self, what: RateLimitItem, source: str) -> None:
        """Count one attempt, whatever will come of it."""
        with self._lock:
            if full := self._full(what, source):
                raise self._too_many(*full)
            self._count(what, source)

    def check(self, source: str, presented: str = "") -> None:
        """Look, without counting, whether too many logins failed from there."""
        if (full := self._full(FAILURES, source)) and not self._was_good(presented):
            raise self._too_many(*full)

    def failed(self, source: str) -> None:
        """Count a login that failed."""
        self._count(FAILURES, source)

    def _full(self, what: RateLimitItem, source: str) -> tuple[RateLimitItem, str] | None:
        """The limit that is reached, and by whom together."""
        for item, group in _counted(what, source):
            if not self._limiter.test(item, group):
                return item, group
        return None

    def _count(self, what: RateLimitItem, source: str) -> None:
        with self._lock:
            self._forget()
            for item, group in _counted(what, source):
                self._limiter.hit(item, group)

    def _forget(self) -> None:
        """Keep about so many sources at the most: the library lets go of what they did, and never of their names."""
        events = self._storage.events
        if len(events) < _MOST_SOURCES:
            return
        for key in [key for key, seen in events.items() if not seen]:
            del events[key]
        if len(events) >= _MOST_SOURCES:
            # A flood from everywhere: the oldest begin anew, and go the next time. Emptied, for the library's own
            # thread may be at them.
            for key in list(events)[: _MOST_SOURCES // 2]:
                events[key] = []

    def succeeded(self, presented: str) -> None:
        """Remember that this was good."""
        with self._lock:
            key = _digest(presented)
            self._good[key] = self._clock()
            self._good.move_to_end(key)
            if len(self._good) > _REMEMBERED:
                self._good.popitem(last=False)

    def _was_good(self, presented: str) -> bool:
        with self._lock:
            at = self._good.get(_digest(presented)) if presented else None
        return at is not None and self._clock() - at < _REMEMBERED_SECONDS

    def _too_many(self, what: RateLimitItem, group: str) -> TooMany:
        stats = self._limiter.get_window_stats(what, group)
        after = max(1, math.ceil(stats.reset_time - time.time()))
        return TooMany("There were too many attempts to log in from this address.", after=after)


def attempts_of(request: Request) -> Attempts:
    """What this server counts."""
    return cast(Attempts, request.app.state.attempts)


def _counted(what: RateLimitItem, source: str) -> list[tuple[RateLimitItem, str]]:
    """All that an attempt counts for: of IPv6 also the site, which may have 65536 networks of its own."""
    site = site_of(source)
    return [(what, group_of(source)), *([(SITES[what.namespace], site)] if site else [])]


def _digest(presented: str) -> str:
    return hashlib.sha256(presented.encode()).hexdigest()
