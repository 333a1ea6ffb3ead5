"""Restarting one part under its living supervisor, which does it by itself when the part's process ends."""

from __future__ import annotations

import signal as signals
import time

from branchline.domain.errors import PlatformBroke, TimedOut
from branchline.layout import Layout
from branchline.stack.ledger import SUPERVISOR, Ledger
from branchline.stack.part import NotReady, Part, last_line
from branchline.stack.process import Process

LIMIT = 60.0


def restart(layout: Layout, part: Part, limit: float = LIMIT) -> None:
    """Have the part started anew with a configuration of now, and wait until it does its work again.

    It is killed, which every part survives: OpenBao is away for half as long as when it is asked to end. Raises
    PlatformBroke (`not_running`) where nobody would start it again, TimedOut (`not_restarted`) with its last words.
    """
    ledger = Ledger(layout.run)
    supervisor = ledger.read(SUPERVISOR)
    if supervisor is None or not supervisor.alive:
        raise PlatformBroke(
            "The platform is not running.",
            code="not_running",
            hint="Start it with `branchline up`. Repeat the command then: it goes on where it was.",
        )
    before = ledger.read(part.name)
    if before and before.identity:
        Process(before.identity).signal(signals.SIGKILL)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        time.sleep(0.05)
        now = ledger.read(part.name)
        if now and now.up and now.alive and (before is None or now.identity != before.identity):
            try:
                part.check()
            except NotReady:
                continue
            return
    log = layout.log / f"{part.name}.log"
    raise TimedOut(
        f"{part.name} was not back {limit:.0f} s after it was restarted.",
        code="not_restarted",
        hint=last_line(log) or f"See {log}.",
    )
