"""What this process carries now and how far each deployment is, so that the runner can see when one of them hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from branchline.domain.pipeline import AFTER_SWITCH, Stage

MARGIN = 180.0
"""Seconds that a stage may overrun its time limit: longer than any single call to a server beneath may take."""

BETWEEN_STAGES = 300.0
"""Seconds for the bookkeeping between two stages, besides the patience with an outage of the database."""


@dataclass(frozen=True)
class _Place:
    stage: Stage | None
    until: float


class Carrying:
    """The deployments that this process carries."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, between: float = BETWEEN_STAGES) -> None:
        self._clock = clock
        self._between = between
        self._places: dict[int, _Place] = {}
        self._lock = threading.Lock()
        self.moved: Callable[[], None] = lambda: None

    def at(self, deployment: int, stage: Stage | None, limit: float = 0.0) -> None:
        """The deployment is in this stage now (None: between two), which ends within `limit` seconds by itself."""
        with self._lock:
            before = self._places.get(deployment)
            self._places[deployment] = _Place(stage, self._clock() + (limit + MARGIN if stage else self._between))
        if stage in AFTER_SWITCH and (before is None or before.stage not in AFTER_SWITCH):
            self.moved()

    def leave(self, deployment: int) -> None:
        """The deployment is over, or somebody else carries it."""
        with self._lock:
            self._places.pop(deployment, None)
        self.moved()

    @property
    def all(self) -> list[int]:
        """Every deployment that is carried."""
        with self._lock:
            return sorted(self._places)

    @property
    def working(self) -> int:
        """How many still have their work before them. Those behind the switch wait more than they work."""
        with self._lock:
            return sum(place.stage not in AFTER_SWITCH for place in self._places.values())

    def hanging(self) -> tuple[int, Stage | None] | None:
        """A deployment whose stage did not even heed its own time limit; None where all is well."""
        now = self._clock()
        with self._lock:
            return next(((one, place.stage) for one, place in self._places.items() if now > place.until), None)
