"""A keeper starts one part when what it needs is ready, watches it, and starts it again when it dies."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread

from branchline.domain.errors import BranchlineError
from branchline.stack.ledger import Entry, Ledger, State
from branchline.stack.part import NotReady, Part, await_ready, last_line
from branchline.stack.process import Process

Say = Callable[[str, str], None]
"""Tells people about a part: its name, and what happened."""

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 30.0
HEALTHY_AFTER = 60.0
LOOK_EVERY = 2.0
PATIENCE_WITHOUT_PROCESS = 6.0


class Backoff:
    """How long to wait before the next start: twice as long each time, from the beginning again after good health."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE

    def after(self, healthy: float) -> float:
        """Seconds to wait after a life that was healthy for so many seconds."""
        if healthy >= HEALTHY_AFTER:
            self._pause = FIRST_PAUSE
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        return pause


class Keeper(Thread):
    """Keeps one part. `ready` is set from its first readiness on; `ending` makes it leave the process as it is."""

    def __init__(
        self, part: Part, order: int, needs: Sequence[Keeper], ledger: Ledger, logs: Path, say: Say, ending: Event
    ) -> None:
        super().__init__(name=part.name, daemon=True)
        self.part = part
        self.log = logs / f"{part.name}.log"
        self.ready = Event()
        self._needs = needs
        self._ledger = ledger
        self._say = say
        self._ending = ending
        self._process: Process | None = None
        self._ready_since = 0.0
        self._entry = Entry(part.name, State.WAITING, order)
        self._former = ledger.read(part.name)

    def run(self) -> None:
        """Live until `ending` is set."""
        if not self._needs_are_ready():
            return
        backoff = Backoff()
        while not self._ending.is_set():
            self._ready_since = 0.0
            try:
                reason = self._live()
            except (BranchlineError, NotReady, OSError) as fault:
                reason = str(fault)
                if hint := getattr(fault, "hint", ""):
                    reason = f"{reason} {hint}"
            except Exception as fault:  # whatever it is, the part must be tried again
                reason = f"{type(fault).__name__}: {fault}"
                self._say(self.part.name, traceback.format_exc())
            if self._ending.is_set():
                return
            if self._process:
                self._process.stop(self.part.stop_signal, self.part.stop_limit)
                self._process = None
            pause = backoff.after(time.monotonic() - self._ready_since if self._ready_since else 0.0)
            self._note(State.DOWN, reason=reason, restarts=self._entry.restarts + 1)
            self._say(self.part.name, f"is down: {reason}. Next try in {pause:.1f} s.")
            self._ending.wait(pause)

    def stop(self) -> None:
        """Stop the part; called after `ending` was set and the thread ended."""
        if self._process and (why := self.part.occupied()):
            self._note(State.UP)
            self._say(self.part.name, f"is left running: {why}.")
            return
        if self._process:
            self._note(State.STOPPING)
            if not self._process.stop(self.part.stop_signal, self.part.stop_limit):
                self._say(self.part.name, f"did not stop within {self.part.stop_limit:.0f} s and was killed.")
            self._process = None
        self._ledger.forget(self.part.name)

    def adopt(self) -> None:
        """Take over what a dead supervisor left running, so that `stop` can stop it."""
        if self._former and self._former.identity and self._former.alive:
            self._process = Process(self._former.identity)
        elif command := self.part.command():
            self._process = Process.find(command)

    def _needs_are_ready(self) -> bool:
        self._note(State.WAITING)
        while not self._ending.is_set():
            if all(need.ready.is_set() for need in self._needs):
                return True
            self._ending.wait(0.02)
        return False

    def _live(self) -> str:
        """One life of the part: adopt or start it, wait until it is ready, watch it; returns why it ended."""
        began = time.monotonic()
        self._note(State.STARTING)
        self._process, adopted = self._adopt_or_start()
        self._note(State.STARTING)
        if not await_ready(self.part, self._process, self.log, self._ending):
            return "stopping"
        self._ready_since = time.monotonic()
        took = self._ready_since - began
        self._note(State.EXTERNAL if self.part.external else State.UP, took=took)
        self._say(self.part.name, f"{'still runs' if adopted else 'up'} ({took:.2f} s)  {self.part.endpoint}")
        self.ready.set()
        return self._watch()

    def _adopt_or_start(self) -> tuple[Process | None, bool]:
        former, self._former = self._former, None
        if former and former.identity and former.alive:
            left = Process(former.identity)
            if not self.part.external and self.part.adoptable(left):
                return left, True
            # A setting made it external since then, or it is an older version's.
            left.stop(self.part.stop_signal, self.part.stop_limit)
        command = self.part.command()
        if command and (orphan := Process.find(command)):
            if self.part.adoptable(orphan):
                return orphan, True
            orphan.stop(self.part.stop_signal, self.part.stop_limit)
        self.part.prepare()
        # What it needs may have come about in `prepare`: ask again.
        command = self.part.command()
        return (self.part.start(command, self.log) if command else None), False

    def _watch(self) -> str:
        patience = PATIENCE_WITHOUT_PROCESS if self._process is None else self.part.patience
        looked = answered = time.monotonic()
        while not self._ending.is_set():
            if self._process is None:
                self._ending.wait(0.2)
            elif self._process.wait(0.2):
                self._process.kill_session()  # its children would go on beside those of its next life
                how, self._process = self._process.ending(), None
                return f"{how}; its last words: {last_line(self.log) or 'none'}"
            now = time.monotonic()
            if now - looked < LOOK_EVERY:
                continue
            looked = now
            self._tend()
            if patience is None:
                continue
            try:
                self.part.check()
                answered = now
            except NotReady as answer:
                if now - answered > patience:
                    return f"does not do its work: {answer}"
        return "stopping"

    def _tend(self) -> None:
        if self._process is None:
            return
        try:
            self.part.tend(self._process.signal)
        except OSError as fault:
            self._say(self.part.name, f"cannot keep its files in order: {fault}")

    def _note(self, state: State, *, took: float = 0.0, reason: str = "", restarts: int | None = None) -> None:
        before = self._entry
        self._entry = Entry(
            before.part,
            state,
            before.order,
            identity=self._process.identity if self._process else None,
            took=took,
            restarts=before.restarts if restarts is None else restarts,
            reason=reason,
        )
        with contextlib.suppress(OSError):  # a full disk must not end the watch; `Process.find` does without it
            self._ledger.write(self._entry)
