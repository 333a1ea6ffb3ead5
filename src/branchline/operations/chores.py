"""Chores: what a runner does besides deployments, again and again, one runner of its tier at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from branchline.domain.errors import PlatformBroke
from branchline.records import Store


@dataclass(frozen=True)
class Chore:
    """Something to be done every so many seconds. `run` may be killed at any line, and then is done again.

    `at_once` also soon after the start; else only after the first `every` seconds.
    """

    name: str
    every: float
    run: Callable[[], None]
    at_once: bool = True


class Chores:
    """Runs each chore in a thread of its own, so that a long one keeps no other waiting.

    `say` is told what went wrong (chore, sentence); the chore is then tried again when it is due.
    """

    def __init__(self, store: Store, tier: str, chores: Sequence[Chore], say: Callable[[str, str], None]) -> None:
        self._store = store
        self._tier = tier
        self._chores = chores
        self._say = say
        self._over = threading.Event()

    def begin(self) -> None:
        """Start the threads. They end with the process: whatever they do can be done again."""
        for chore in self._chores:
            threading.Thread(target=self._repeat, args=(chore,), name=chore.name, daemon=True).start()

    def end(self) -> None:
        """Begin nothing new from now on."""
        self._over.set()

    def _repeat(self, chore: Chore) -> None:
        pause = min(chore.every, 5.0) if chore.at_once else chore.every
        while not self._over.wait(pause):
            began = time.monotonic()
            self.do(chore)
            pause = max(0.0, chore.every - (time.monotonic() - began))

    def do(self, chore: Chore) -> None:
        """Do a chore once, unless another runner of the tier is at it now."""
        try:
            with self._store.alone(f"{chore.name}-{self._tier}") as alone:
                if alone:
                    chore.run()
        except PlatformBroke as error:  # a server is away: next time, then
            self._say(chore.name, error.sentence)
        except Exception as error:  # a fault in one round must not end all rounds to come
            self._say(chore.name, f"{type(error).__name__}: {error}")
