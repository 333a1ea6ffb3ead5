"""The story of a deployment, top to bottom. Every deployment of every project takes this road."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar
from uuid import uuid4

from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.deployment import Deployment, Failure, State
from branchline.domain.environment import Environment
from branchline.domain.errors import BranchlineError, Cancelled, DeploymentFailed, PlatformBroke, TakenOver
from branchline.domain.pipeline import AFTER_SWITCH, TIME_LIMITS, Stage, StageFailed, StageResult, StageState
from branchline.operations.journal import DeploymentLog
from branchline.operations.launch import Launch
from branchline.operations.pipeline import Pipeline
from branchline.operations.scene import TIMED_OUT, Scene, StageInterrupt
from branchline.operations.traffic import TrafficShift
from branchline.ports import Durable
from branchline.records import Records, Store

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0
_PATIENCE = 120.0
"""Seconds for which a stage keeps trying while a server beneath it does not answer."""

_SHOW_OUTPUT = frozenset({Stage.VERIFY, Stage.WATCH})
"""Stages that copy what containers say, whose secrets an earlier stage learnt: perhaps in another process."""

_T = TypeVar("_T")


class Deploy:
    """Puts a commit into an environment, or leaves everything as it was."""

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        launch: Launch,
        traffic: TrafficShift,
        *,
        runner: str,
        log_limit: int,
        report_fault: Callable[[str, str], None],
    ) -> None:
        self.store = store
        self.pipeline = pipeline
        self.launch = launch
        self.traffic = traffic
        self.runner = runner
        self.log_limit = log_limit
        self.report_fault = report_fault

    def run(self, deployment: int, durable: Durable) -> None:
        """Tell the whole story. Any process that runs it again goes on where the last one stopped."""
        with self._telling(deployment, durable) as tell:
            try:
                tell(Stage.CHECKOUT, self.pipeline.checkout)
                tell(Stage.BUILD, self.pipeline.build)
                tell(Stage.TEST, self.pipeline.test)
                tell(Stage.PUBLISH, self.pipeline.publish)
                tell(Stage.PREPARE, self.launch.prepare)
                tell(Stage.RELEASE, self.launch.release_command)
                tell(Stage.START, self.launch.start)
                tell(Stage.VERIFY, self.launch.verify)
                tell(Stage.SWITCH, self.traffic.switch)
                tell(Stage.WATCH, self.traffic.watch)
            except StageFailed as failed:
                tell.attempt(Stage.UNDO, self.traffic.undo)
                tell.end_after(failed)
            else:
                tell.attempt(Stage.DRAIN, self.traffic.drain)
                tell.end(State.SUCCEEDED)

    @contextmanager
    def _telling(self, deployment: int, durable: Durable) -> Iterator[Telling]:
        carried = _persistently(self.store, lambda records: records.deployments.adopt(deployment, self.runner))
        log = _persistently(self.store, lambda _: DeploymentLog(self.store, deployment, self.log_limit))
        try:
            yield Telling(self, carried, durable, log)
            self.pipeline.tidy(carried)  # only at the end: who goes on after an interruption may need what is there
        finally:
            log.close()


class Telling:
    """Tells one deployment: runs each stage once, durably, and writes down what came of it."""

    def __init__(self, deploy: Deploy, deployment: Deployment, durable: Durable, log: DeploymentLog) -> None:
        self._store = deploy.store
        self._runner = deploy.runner
        self._report_fault = deploy.report_fault
        self._learn_secrets = deploy.launch.learn_secrets
        self._deployment = deployment
        self._durable = durable
        self._log = log
        self._outputs: dict[Stage, Mapping[str, Any]] = {}
        self._performed: set[Stage] = set()
        self._project = _persistently(self._store, lambda records: records.projects.get(deployment.project))
        self._environment = self._environment_now()

    def __call__(self, stage: Stage, perform: Callable[[Scene], StageResult]) -> None:
        """Run a stage, or take what it left behind when it ran before; raise StageFailed if it did not go well."""
        told = self._durable.step(stage, lambda: self._perform(stage, perform))
        if told["failure"]:
            raise StageFailed(stage, Failure(**told["failure"]), told["broke"])
        self._outputs[stage] = told["output"]

    def attempt(self, stage: Stage, perform: Callable[[Scene], StageResult]) -> None:
        """Run a stage whose failure changes nothing about the outcome; the journal tells of it all the same."""
        try:
            self(stage, perform)
        except StageFailed as failed:
            self._log.write(f"{failed.failure.sentence} {failed.failure.hint}")

    def end_after(self, failed: StageFailed) -> None:
        """End a deployment that did not succeed."""
        if failed.failure.code == Cancelled.code:
            self.end(State.CANCELLED, failed)
        elif self._environment_now().live_deployment == self._deployment.id:
            failed.failure = replace(failed.failure, hint=_STILL_LIVE)
            self.end(State.BROKEN if failed.broke else State.FAILED, failed)
        elif failed.stage in AFTER_SWITCH:
            self.end(State.UNDONE, failed)
        else:
            self.end(State.BROKEN if failed.broke else State.FAILED, failed)

    def end(self, state: State, failed: StageFailed | None = None) -> None:
        """Write down the outcome."""
        stage, failure = (failed.stage, failed.failure) if failed else (None, None)

        def write(records: Records) -> None:
            if records.deployments.finish(self._deployment.id, state, stage, failure):
                detail = {"state": state, "stage": stage, "failure": vars(failure) if failure else None}
                self._register(records, Kind.DEPLOYMENT_FINISHED, detail)

        _persistently(self._store, write)

    def _perform(self, stage: Stage, perform: Callable[[Scene], StageResult]) -> dict[str, Any]:
        self._performed.add(stage)
        self._log.begin(stage)
        _persistently(self._store, lambda records: records.deployments.begin_stage(self._deployment.id, stage))
        result, failure, broke = StageResult(), None, False
        try:
            result = self._perform_patiently(stage, perform)
        except TakenOver:
            raise
        except PlatformBroke as error:
            failure, broke = self._told(error), True
        except BranchlineError as error:
            failure = self._told(error)
        except Exception:  # the story must end well-told, whatever a stage did not foresee
            incident = uuid4().hex[:8]
            self._report_fault(incident, traceback.format_exc())
            failure, broke = _internal_fault(stage, incident), True
        self._note_end(stage, result, failure, broke)
        return {"output": result.output, "failure": vars(failure) if failure else None, "broke": broke}

    def _perform_patiently(self, stage: Stage, perform: Callable[[Scene], StageResult]) -> StageResult:
        """Try again while a server beneath us does not answer: most outages are short."""
        limit = self._limit(stage)
        stop = StageInterrupt(
            self._store, self._deployment.id, self._runner, stage, limit, cancellable=stage not in AFTER_SWITCH
        )
        scene = Scene(self._deployment, self._project, self._environment, self._log, stop, self._outputs)
        waited, pause = 0.0, _FIRST_PAUSE
        stop.check()
        while True:
            try:
                if stage in _SHOW_OUTPUT and Stage.START not in self._performed:
                    self._learn_secrets(scene)
                return perform(scene)
            except PlatformBroke as error:
                if not error.passing or waited >= min(_PATIENCE, limit):
                    raise
                self._log.write(f"{error.sentence} Trying again in {pause:g} s.")
                try:
                    stop.wait(pause)
                except DeploymentFailed as late:
                    if late.code != TIMED_OUT:
                        raise
                    raise error from late  # not the project was slow: the server never came back
            waited, pause = waited + pause, min(pause * 2, _LONGEST_PAUSE)

    def _limit(self, stage: Stage) -> float:
        checkout = self._outputs.get(Stage.CHECKOUT)
        asked = checkout["manifest"]["timeouts"] if checkout else {}
        return float(asked.get(stage, TIME_LIMITS[stage]))

    def _note_end(self, stage: Stage, result: StageResult, failure: Failure | None, broke: bool) -> None:
        self._log.end_stage()
        if failure:
            state, note = StageState.BROKE if broke else StageState.FAILED, failure.sentence
        else:
            state = StageState.SKIPPED if result.skipped else StageState.PASSED
            note = self._log.clean(result.note)

        def write(records: Records) -> None:
            records.deployments.end_stage(self._deployment.id, stage, state, note)
            self._register(records, Kind.STAGE_ENDED, {"stage": stage, "state": state, "note": note})

        _persistently(self._store, write)

    def _told(self, error: BranchlineError) -> Failure:
        # A container's own words may be in it, and a container knows secrets.
        return Failure(error.code, self._log.clean(error.sentence), self._log.clean(error.hint))

    def _environment_now(self) -> Environment:
        about = self._deployment
        return _persistently(self._store, lambda records: records.environments.get(about.project, about.environment))

    def _register(self, records: Records, kind: Kind, detail: dict[str, Any]) -> None:
        about = self._deployment
        records.register.add(AuditEvent(kind, "platform", about.project, about.environment, about.id, detail))


_STILL_LIVE = (
    "Going back did not work either, so this release is still live: see the stage undo in the log. "
    "Deploy a commit that works."
)


def _persistently(store: Store, write: Callable[[Records], _T]) -> _T:
    """Try again while the platform's own database is away: no story may break over its bookkeeping."""
    waited, pause = 0.0, _FIRST_PAUSE
    while True:
        try:
            with store.transaction() as records:
                return write(records)
        except PlatformBroke as error:
            if not error.passing or waited >= _PATIENCE:
                raise
        time.sleep(pause)
        waited, pause = waited + pause, min(pause * 2, _LONGEST_PAUSE)


def _internal_fault(stage: Stage, incident: str) -> Failure:
    return Failure(
        "internal",
        f"The platform met a fault of its own in the stage {stage}.",
        f"Nothing of yours caused it. The runner's log has the details under incident {incident}.",
    )
