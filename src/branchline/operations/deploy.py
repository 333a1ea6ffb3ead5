"""The story of a deployment, top to bottom. Every deployment of every project takes this road."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.deployment import Deployment, Failure, State
from branchline.domain.errors import BranchlineError, Cancelled, PlatformBroke, TakenOver
from branchline.domain.pipeline import AFTER_SWITCH, TIME_LIMITS, Stage, StageFailed, StageResult, StageState
from branchline.operations.journal import DeploymentLog
from branchline.operations.launch import Launch
from branchline.operations.pipeline import Pipeline
from branchline.operations.scene import Scene, StageInterrupt
from branchline.operations.traffic import TrafficShift
from branchline.ports import Durable
from branchline.records import Records, Store

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0
_PATIENCE = 120.0
"""Seconds for which a stage keeps trying while a server beneath it does not answer."""


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
        with self.store.transaction() as records:
            carried = records.deployments.adopt(deployment, self.runner)
        log = DeploymentLog(self.store, deployment, self.log_limit)
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
        self._deployment = deployment
        self._durable = durable
        self._log = log
        self._outputs: dict[Stage, Mapping[str, Any]] = {}
        with self._store.transaction() as records:
            self._project = records.projects.get(deployment.project)
            self._environment = records.environments.get(deployment.project, deployment.environment)

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
        elif failed.stage in AFTER_SWITCH and Stage.UNDO in self._outputs:
            self.end(State.UNDONE, failed)
        else:
            self.end(State.BROKEN if failed.broke else State.FAILED, failed)

    def end(self, state: State, failed: StageFailed | None = None) -> None:
        """Write down the outcome."""
        with self._store.transaction() as records:
            stage, failure = (failed.stage, failed.failure) if failed else (None, None)
            if records.deployments.finish(self._deployment.id, state, stage, failure):
                detail = {"state": state, "stage": stage, "failure": vars(failure) if failure else None}
                self._register(records, Kind.DEPLOYMENT_FINISHED, detail)

    def _perform(self, stage: Stage, perform: Callable[[Scene], StageResult]) -> dict[str, Any]:
        self._log.begin(stage)
        with self._store.transaction() as records:
            records.deployments.begin_stage(self._deployment.id, stage)
        result, failure, broke = StageResult(), None, False
        try:
            result = self._perform_patiently(stage, perform)
        except TakenOver:
            raise
        except PlatformBroke as error:
            failure, broke = Failure(error.code, error.sentence, error.hint), True
        except BranchlineError as error:
            failure = Failure(error.code, error.sentence, error.hint)
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
        while True:
            stop.check()
            try:
                return perform(scene)
            except PlatformBroke as error:
                if not error.passing or waited >= min(_PATIENCE, limit):
                    raise
                self._log.write(f"{error.sentence} Trying again in {pause:g} s.")
            stop.wait(pause)
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
            state, note = StageState.SKIPPED if result.skipped else StageState.PASSED, result.note
        with self._store.transaction() as records:
            records.deployments.end_stage(self._deployment.id, stage, state, note)
            self._register(records, Kind.STAGE_ENDED, {"stage": stage, "state": state, "note": note})

    def _register(self, records: Records, kind: Kind, detail: dict[str, Any]) -> None:
        about = self._deployment
        records.register.add(AuditEvent(kind, "platform", about.project, about.environment, about.id, detail))


def _internal_fault(stage: Stage, incident: str) -> Failure:
    return Failure(
        "internal",
        f"The platform met a fault of its own in the stage {stage}.",
        f"Nothing of yours caused it. The runner's log has the details under incident {incident}.",
    )
