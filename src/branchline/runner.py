"""A runner: takes queued deployments of its tier, carries them through the story, takes over from runners that died.

Usage: python -m branchline.runner --tier nonprod|production [--name runner-nonprod-2]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import TextIO, cast
from uuid import uuid4

if __name__ == "__main__":  # structlog and httpx load rich for colours that nobody sees here: 7 MB of a small process
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]

import structlog

from branchline import memory
from branchline.bootstrap.runner import RunnerParts, runner_parts
from branchline.domain.deployment import Deployment
from branchline.domain.environment import Tier
from branchline.domain.errors import BranchlineError, PlatformBroke, TakenOver
from branchline.operations import claims
from branchline.operations.chores import Chores
from branchline.settings import Settings
from branchline.store.leases import Bell, Lease

log = structlog.get_logger("runner")

_LOOK_EVERY = 1.0
_REST_AFTER = 15.0
_LAST_CALL = 10
_LEASE_LOST = 75
_DIED = 70

_MOST_AT_ALL = 32
"""Deployments that one runner carries, those included that only watch or drain: each has a thread."""

_MOST_ATTEMPTS = 100
"""Stages count their own; this is for what kills or breaks a story between them."""


class Runner:
    """One process of a tier. Several may share the work, on any number of hosts."""

    def __init__(self, parts: RunnerParts, tier: Tier, name: str, part: str) -> None:
        self._store = parts.store
        self._deploy = parts.deploy
        self._at_once = parts.settings.deployments_at_once
        self._heartbeat = parts.layout.run / f"{part}.json"
        self._tier = tier
        self._name = name
        self._carrying = parts.deploy.carrying
        self._wake = threading.Event()
        self._carrying.moved = self._wake.set
        self._stopping = threading.Event()
        self._idle_since = time.monotonic()
        self._lease = Lease(parts.store.engine, name)
        self._chores = Chores(parts.store, tier, parts.chores, _report_chore)

    def run(self) -> None:
        """Work until SIGTERM."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        self._lease.keep(lost=_leave_it_to_others)
        Bell(self._store.engine, self._tier, self._wake.set)
        self._chores.begin()
        memory.settle()
        log.info("ready", runner=self._name, tier=self._tier)
        looked = 0.0
        while not self._stopping.is_set():
            try:
                if time.monotonic() - looked >= _LOOK_EVERY:
                    looked = time.monotonic()
                    self._beat()
                    self._look_for_hanging()
                    self._look_after_running()
                self._take_work()
                self._rest_when_idle()
            except PlatformBroke as error:
                log.warning("waiting", reason=error.sentence)
            except OSError as error:  # no room for a sign of life: what is carried goes on, nothing new is taken
                log.warning("waiting", reason=str(error))
            self._wake.wait(_LOOK_EVERY)
            self._wake.clear()
        log.info("stopping", carrying=self._carrying.all)
        self._chores.end()
        self._finish_what_is_nearly_done()

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping.set()
        self._wake.set()

    def _finish_what_is_nearly_done(self) -> None:
        """Another runner goes on with the rest."""
        until = time.monotonic() + _LAST_CALL
        while self._carrying.all and time.monotonic() < until:
            time.sleep(0.05)

    def _take_work(self) -> None:
        while not self._stopping.is_set() and self._has_room():
            claimed = claims.claim(self._store, self._tier, self._name)
            if claimed is None:
                return
            self._begin(claimed)

    def _rest_when_idle(self) -> None:
        if self._carrying.all:
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since > _REST_AFTER:
            self._idle_since = time.monotonic()
            self._store.rest()
            memory.give_back()

    def _has_room(self) -> bool:
        """Whether one more can be carried: few that work, and many that only wait for what comes of a switch."""
        return self._carrying.working < self._at_once and len(self._carrying.all) < _MOST_AT_ALL

    def _begin(self, deployment: Deployment) -> None:
        self._carrying.at(deployment.id, None)
        log.info("begins", deployment=deployment.id, attempt=deployment.attempt)
        threading.Thread(target=self._tell, args=(deployment,), name=f"deployment-{deployment.id}", daemon=True).start()

    def _tell(self, deployment: Deployment) -> None:
        try:
            self._deploy.run(deployment)
            log.info("ended", deployment=deployment.id)
        except TakenOver as error:
            log.warning("left to another runner", deployment=deployment.id, reason=error.sentence)
        except Exception:  # the next look finds that nobody tells it any more, and begins anew
            log.exception("story broke", deployment=deployment.id)

    def _look_for_hanging(self) -> None:
        """A stage that does not heed its own time limit: nothing but a new process gets out of that."""
        hanging = self._carrying.hanging()
        if hanging is None:
            return
        deployment, stage = hanging
        log.error("hangs: starting anew", deployment=deployment, stage=stage)
        if stage is not None:
            with self._store.transaction() as records:
                if (deployment, self._name) in records.deployments.running(self._tier):  # or it is another's by now
                    records.deployments.note_hung(deployment, stage)
        os._exit(_DIED)

    def _look_after_running(self) -> None:
        """Go on with what a dead runner carried, and with what broke off in this one."""
        with self._store.transaction() as records:
            running = records.deployments.running(self._tier)
        for deployment, carrier in running:
            if carrier == self._name:
                if deployment not in self._carrying.all:
                    self._go_on(deployment, carrier)
            elif self._lease.dead(carrier):
                log.warning("takes over", deployment=deployment, dead=carrier)
                self._go_on(deployment, carrier)
                self._lease.bury(carrier)

    def _go_on(self, deployment: int, carrier: str) -> None:
        taken = claims.take_over(self._store, deployment, self._name, carrier)
        if taken is None:
            return
        if taken.attempt > _MOST_ATTEMPTS:
            claims.give_up(self._store, taken, _MOST_ATTEMPTS)
        else:
            self._begin(taken)

    def _beat(self) -> None:
        partial = self._heartbeat.with_suffix(".partial")
        beat = {"pid": os.getpid(), "executor": self._name, "at": time.time(), "carrying": self._carrying.all}
        partial.write_text(json.dumps(beat))
        partial.replace(self._heartbeat)


def main() -> int:
    """Run until SIGTERM; the exit status tells the supervisor nothing but that it ended."""
    parser = argparse.ArgumentParser(prog="branchline.runner", description=__doc__)
    parser.add_argument("--tier", type=Tier, choices=list(Tier), required=True)
    parser.add_argument("--name", help="what the stack calls this runner, where a tier has several")
    arguments = parser.parse_args()
    tier: Tier = arguments.tier
    name = f"{tier}-{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
    configure_log()
    try:
        parts = runner_parts(Settings(), tier, name, report_fault=_report_fault)
        Runner(parts, tier, name, arguments.name or f"runner-{tier}").run()
    except BranchlineError as error:
        log.error("cannot run", code=error.code, sentence=error.sentence, hint=error.hint)  # noqa: TRY400
        return error.exit_status
    except Exception:  # without its loop a runner would tell stories on with nobody to keep its lease
        log.exception("died")
        return _DIED
    return 0


class _Outlet(io.TextIOBase):
    """Standard error; where it is a file on a full disk, what it cannot take is lost, and nothing else is.

    Past Python's own buffers, which would keep all that and try it again with each line.
    """

    def write(self, text: str) -> int:
        with suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))
        return len(text)


def configure_log() -> None:
    """Say what happens to standard error, in lines of JSON."""
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Outlet())),
    )


def _leave_it_to_others() -> None:
    """Others may have taken over what this process carries: it must not go on beside them."""
    log.error("lease lost: starting anew")
    os._exit(_LEASE_LOST)


def _report_chore(chore: str, sentence: str) -> None:
    log.warning("chore undone", chore=chore, reason=sentence)


def _report_fault(incident: str, trace: str) -> None:
    log.error("fault", incident=incident, trace=trace)


if __name__ == "__main__":
    status = main()
    with suppress(OSError):
        sys.stderr.flush()
    # Threads that still tell a story are left behind on purpose: whoever runs next goes on with it.
    os._exit(status)
