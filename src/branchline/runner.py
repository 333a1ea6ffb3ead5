"""A runner: takes queued deployments of its tier, carries them through the story, takes over from runners that died.

Usage: python -m branchline.runner --tier nonprod|production
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from uuid import uuid4

import structlog

from branchline.adapters.engine import DbosEngine
from branchline.bootstrap.runner import RunnerParts, runner_parts
from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.deployment import Failure, State
from branchline.domain.environment import Tier
from branchline.domain.errors import BranchlineError, PlatformBroke
from branchline.ports import Durable
from branchline.settings import Settings
from branchline.store.leases import Bell, Lease

log = structlog.get_logger("runner")

_LOOK_EVERY = 1.0
_LAST_CALL = 10
_LEASE_LOST = 75
_DIED = 70


class Runner:
    """One process of a tier. Several may share the work, on any number of hosts."""

    def __init__(self, parts: RunnerParts, tier: Tier, name: str) -> None:
        self._store = parts.store
        self._deploy = parts.deploy
        self._at_once = parts.settings.deployments_at_once
        self._heartbeat = parts.layout.run / f"runner-{tier}.json"
        self._tier = tier
        self._name = name
        self._carrying: set[int] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._lease = Lease(parts.store.engine, name)
        self._engine = DbosEngine(parts.store.engine, tier, name, self._tell)

    def run(self) -> None:
        """Work until SIGTERM."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        self._engine.launch()
        Bell(self._store.engine, self._tier, self._wake.set)
        log.info("ready", runner=self._name, tier=self._tier)
        looked = 0.0
        while not self._stopping.is_set():
            try:
                if time.monotonic() - looked >= _LOOK_EVERY:
                    looked = time.monotonic()
                    self._keep_lease()
                    self._beat()
                    self._look_after_orphans()
                self._take_work()
            except PlatformBroke as error:
                log.warning("waiting", reason=error.sentence)
            self._wake.wait(_LOOK_EVERY)
            self._wake.clear()
        log.info("stopping", carrying=sorted(self._carrying))
        self._engine.stop(_LAST_CALL if self._carrying else 0)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping.set()
        self._wake.set()

    def _take_work(self) -> None:
        while not self._stopping.is_set() and len(self._carrying) < self._at_once:
            with self._store.transaction() as records:
                claimed = records.deployments.claim(self._tier, self._name)
                if claimed is None:
                    return
                about = (claimed.project, claimed.environment, claimed.id)
                records.register.add(AuditEvent(Kind.DEPLOYMENT_STARTED, "platform", *about, {"runner": self._name}))
            self._begin(claimed.id)

    def _begin(self, deployment: int) -> None:
        with self._lock:
            self._carrying.add(deployment)
        log.info("begins", deployment=deployment)
        self._engine.start(deployment)

    def _tell(self, deployment: int, durable: Durable) -> None:
        with self._lock:
            self._carrying.add(deployment)
        try:
            self._deploy.run(deployment, durable)
        except Exception:
            log.exception("story broke", deployment=deployment)
            raise
        finally:
            with self._lock:
                self._carrying.discard(deployment)
            self._wake.set()
            log.info("ended", deployment=deployment)

    def _keep_lease(self) -> None:
        if not self._lease.held():
            # Others may have taken over what this process carries: it must not go on beside them.
            log.error("lease lost: starting anew")
            os._exit(_LEASE_LOST)

    def _look_after_orphans(self) -> None:
        with self._store.transaction() as records:
            running = records.deployments.running(self._tier)
        for deployment, carrier in running:
            if carrier == self._name:
                self._look_after_own(deployment)
            elif self._lease.dead(carrier):
                self._take_over(deployment, carrier)
                self._lease.bury(carrier)

    def _take_over(self, deployment: int, dead: str) -> None:
        log.warning("takes over", deployment=deployment, dead=dead)
        teller = self._engine.teller(deployment)
        if teller is None:  # claimed, but never begun
            with self._store.transaction() as records:
                records.deployments.adopt(deployment, self._name)
            self._begin(deployment)
        elif self._engine.ended(deployment):
            self._lose(deployment)
        elif teller == dead:
            self._engine.take_over(dead)
        elif teller != self._name and self._lease.dead(teller):
            # It had taken the story over, and died before it could say so in the deployment.
            self._engine.take_over(teller)
            self._lease.bury(teller)

    def _look_after_own(self, deployment: int) -> None:
        """A deployment of ours whose story is not being told: claimed but never begun, or its story broke."""
        with self._lock:
            if deployment in self._carrying:
                return
        if not self._engine.knows(deployment):
            self._begin(deployment)
        elif self._engine.ended(deployment):
            self._lose(deployment)

    def _lose(self, deployment: int) -> None:
        why = Failure("lost", "The platform lost track of this deployment.", "Deploy again; see the runner's log.")
        with self._store.transaction() as records:
            if records.deployments.finish(deployment, State.BROKEN, failure=why):
                ended = records.deployments.get(deployment)
                about = (ended.project, ended.environment, ended.id)
                detail = {"state": State.BROKEN, "stage": None, "failure": vars(why)}
                records.register.add(AuditEvent(Kind.DEPLOYMENT_FINISHED, "platform", *about, detail))

    def _beat(self) -> None:
        partial = self._heartbeat.with_suffix(".partial")
        beat = {"pid": os.getpid(), "executor": self._name, "at": time.time(), "carrying": sorted(self._carrying)}
        partial.write_text(json.dumps(beat))
        partial.replace(self._heartbeat)


def main() -> int:
    """Run until SIGTERM; the exit status tells the supervisor nothing but that it ended."""
    parser = argparse.ArgumentParser(prog="branchline.runner", description=__doc__)
    parser.add_argument("--tier", type=Tier, choices=list(Tier), required=True)
    tier: Tier = parser.parse_args().tier
    name = f"{tier}-{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        parts = runner_parts(Settings(), tier, name, report_fault=_report_fault)
        Runner(parts, tier, name).run()
    except BranchlineError as error:
        log.error("cannot run", code=error.code, sentence=error.sentence, hint=error.hint)  # noqa: TRY400
        return error.exit_status
    except Exception:  # without its loop a runner would tell stories on with nobody to keep its lease
        log.exception("died")
        return _DIED
    return 0


def _report_fault(incident: str, trace: str) -> None:
    log.error("fault", incident=incident, trace=trace)


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # Threads that still tell a story are left behind on purpose: whoever runs next goes on with it.
    os._exit(status)
