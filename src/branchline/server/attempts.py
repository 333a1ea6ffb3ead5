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
from branchline.server.source import group_of

FAILURES = RateLimitItemPerMinute(20, namespace="failures")
"""Logins that failed, with whatever. What succeeds costs nothing."""

LOGINS = RateLimitItemPerMinute(30, namespace="logins")
"""Browsers that are sent to a provider."""

DEVICES = RateLimitItemPerMinute(10, namespace="devices")
"""Devices that ask for a code."""

_REMEMBERED = 2000
_REMEMBERED_SECONDS = 3600.0


class Attempts:
    """Raises TooMany (`too_many_attempts`, 429) where somebody tries too often.

    Behind one address there may be a whole office. A token that was good lately is therefore let through even where
    others at its address fail all the time: guessing gains nothing by that, and nobody can lock their neighbours out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._clock = clock
        self._good: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def spend(self, what: RateLimitItem, source: str) -> None:
        """Count one attempt, whatever will come of it."""
        if not self._limiter.hit(what, group_of(source)):
            raise self._too_many(what, source)

    def check(self, source: str, presented: str = "") -> None:
        """Look, without counting, whether too many logins failed from there."""
        if not self._limiter.test(FAILURES, group_of(source)) and not self._was_good(presented):
            raise self._too_many(FAILURES, source)

    def failed(self, source: str) -> None:
        """Count a login that failed."""
        self._limiter.hit(FAILURES, group_of(source))

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

    def _too_many(self, what: RateLimitItem, source: str) -> TooMany:
        stats = self._limiter.get_window_stats(what, group_of(source))
        after = max(1, math.ceil(stats.reset_time - time.time()))
        return TooMany("There were too many attempts to log in from this address.", after=after)


def attempts_of(request: Request) -> Attempts:
    """What this server counts."""
    return cast(Attempts, request.app.state.attempts)


def _digest(presented: str) -> str:
    return hashlib.sha256(presented.encode()).hexdigest()
