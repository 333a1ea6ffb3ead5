"""The supervisor: starts all parts as soon as what they need is ready, keeps them, and stops them in reverse order.

It may be killed at any time: parts live on in sessions of their own, and the next supervisor takes them over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from branchline.domain.errors import Conflict, PlatformBroke
from branchline.layout import Layout
from branchline.stack.keeper import Keeper, Say
from branchline.stack.ledger import SUPERVISOR, Entry, Ledger, State
from branchline.stack.logs import rotate
from branchline.stack.part import Part
from branchline.stack.process import Identity

TEND_EVERY = 10.0
DYING_LIMIT = 10.0


class Supervisor:
    """Runs the parts of one platform; there is one supervisor to a home."""

    def __init__(
        self, layout: Layout, parts: Sequence[Part], say: Say, when_up: Callable[[], None] = lambda: None
    ) -> None:
        self._layout = layout
        self._say = say
        self._when_up = when_up
        self._ledger = Ledger(layout.run)
        self._ending = threading.Event()
        self._asked_to_end = os.eventfd(0)
        self._keepers: dict[str, Keeper] = {}
        for order, part in enumerate(in_order(parts)):
            needs = [self._keepers[name] for name in part.needs if name in self._keepers]
            self._keepers[part.name] = Keeper(part, order, needs, self._ledger, layout.log, say, self._ending)

    def run(self) -> None:
        """Start everything and watch it until `end` is called; then stop it.

        Raises Conflict (`already_running`) where another supervisor has this home.
        """
        with hold(self._layout):
            try:
                self._serve()
            finally:
                self._stop()
                self._say(SUPERVISOR, "everything is stopped")

    def clear(self) -> None:
        """Stop what a dead supervisor left running. Raises Conflict (`already_running`) where one lives."""
        with hold(self._layout):
            for keeper in self._keepers.values():
                keeper.adopt()
            self._stop()

    def end(self) -> None:
        """Make `run` stop everything and return. A signal handler may call it: no lock is taken that could be held."""
        os.eventfd_write(self._asked_to_end, 1)

    def _serve(self) -> None:
        began = time.monotonic()
        self._note(State.STARTING)
        for keeper in self._keepers.values():
            keeper.start()
        announced = False
        tended = began
        while not select.select([self._asked_to_end], [], [], 0.5 if announced else 0.02)[0]:
            if not announced and all(keeper.ready.is_set() for keeper in self._keepers.values()):
                announced = True
                took = time.monotonic() - began
                self._note(State.UP, took)
                self._say(SUPERVISOR, f"all {len(self._keepers)} parts are up ({took:.2f} s)")
                self._when_up()
            if time.monotonic() - tended > TEND_EVERY:
                tended = time.monotonic()
                self._tend()

    def _tend(self) -> None:
        try:
            rotate(self._layout.log)
        except OSError as fault:
            self._say(SUPERVISOR, f"cannot keep the logs small: {fault}")

    def _stop(self) -> None:
        self._ending.set()
        self._note(State.STOPPING)
        for keeper in self._keepers.values():
            if keeper.ident is not None:
                keeper.join()
        left = dict(self._keepers)
        while left:
            needed = {name for keeper in left.values() for name in keeper.part.needs}
            last = [left.pop(name) for name in list(left) if name not in needed]
            stopping = [threading.Thread(target=keeper.stop) for keeper in last]
            for thread in stopping:
                thread.start()
            for thread in stopping:
                thread.join()
        self._ledger.forget(SUPERVISOR)

    def _note(self, state: State, took: float = 0.0) -> None:
        with contextlib.suppress(OSError):  # a full disk must not stop what runs
            self._ledger.write(Entry(SUPERVISOR, state, identity=Identity.of(os.getpid()), took=took))


@contextmanager
def hold(layout: Layout) -> Iterator[None]:
    """Be the only supervisor of this home; raises Conflict (`already_running`) that says who is.

    The kernel lets go of the lock when the process ends, however it ends.
    """
    handle = os.open(layout.run / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(handle, layout)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, layout: Layout) -> None:
    end = time.monotonic() + DYING_LIMIT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode().strip()
        else:
            return
        # One that was killed keeps the lock until the last of its threads has ended.
        if time.monotonic() > end or not holder or Identity.of(int(holder)):
            raise Conflict(
                f"The platform in {layout.home} is already running (process {holder or 'unknown'}).",
                code="already_running",
                hint="`branchline status` shows it; `branchline stop` stops it.",
            )
        time.sleep(0.05)


def in_order(parts: Sequence[Part]) -> list[Part]:
    """The parts, each after those that it needs; raises PlatformBroke (`parts_in_a_circle`) where that cannot be.

    Needs that are not among the parts are somebody else's business.
    """
    names = {part.name for part in parts}
    ordered: list[Part] = []
    left = list(parts)
    while left:
        placed = {part.name for part in ordered}
        free = [part for part in left if all(need in placed or need not in names for need in part.needs)]
        if not free:
            circle = ", ".join(part.name for part in left)
            raise PlatformBroke(f"These parts need each other: {circle}.", code="parts_in_a_circle")
        ordered += free
        left = [part for part in left if part not in free]
    return ordered
