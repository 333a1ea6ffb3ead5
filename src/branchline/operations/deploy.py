"""The story of a deployment, top to bottom. Every deployment of every project takes this road."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from branchline.deployment_records import StageRecord
from branchline.domain.deployment import Deployment, Failure, State
from branchline.domain.environment import Environment
from branchline.domain.errors import Cancelled, DeploymentFailed, PlatformBroke, TakenOver
from branchline.domain.pipeline import (
    AFTER_SWITCH,
    MOST_ATTEMPTS,
    TIME_LIMITS,
    Stage,
    StageFailed,
    StageResult,
    StageState,
)
from branchline.operations.carrying import BETWEEN_STAGES, Carrying
from branchline.operations.entries import finished, stage_ended
from branchline.operations.faults import HUNG, failure_of
from branchline.operations.journal import DeploymentLog
from branchline.operations.launch import Launch
from branchline.operations.patience import Patience
from branchline.operations.pipeline import Pipeline
from branchline.operations.scene import TIMED_OUT, Scene, StageInterrupt, cancelled
from branchline.operations.traffic import TrafficShift
from branchline.records import STORE_AWAY, STORE_FULL, Records, Store

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
        log_limit: int,
        patience: float,
        report_fault: Callable[[str, str], None],
    ) -> None:
        self.store = store
        self.pipeline = pipeline
        self.launch = launch
        self.traffic = traffic
        self.log_limit = log_limit
        self.patience = patience
        self.report_fault = report_fault
        self.carrying = Carrying(between=patience + BETWEEN_STAGES)

    def run(self, deployment: Deployment) -> None:
        """Tell the whole story. Any process that takes it over and runs it goes on where the last one stopped.

        Raises TakenOver where somebody else took it over meanwhile, PlatformBroke where even the bookkeeping failed.
        """
        with self._telling(deployment) as tell:
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
    def _telling(self, deployment: Deployment) -> Iterator[Telling]:
        self.carrying.at(deployment.id, None)
        try:
            with closing(self.persistently(lambda _: self._log(deployment.id))) as log:
                yield Telling(self, deployment, log)
                # Only at the end: who goes on after an interruption may need what is there.
                with suppress(PlatformBroke):  # housekeeping comes back to it
                    self.pipeline.tidy(deployment)
        finally:
            self.carrying.leave(deployment.id)

    def persistently(self, write: Callable[[Records], _T]) -> _T:
        """Try again while the platform's own database is away: no story may break over its bookkeeping."""
        patience = Patience(self.patience)
        while True:
            try:
                with self.store.transaction() as records:
                    return write(records)
            except PlatformBroke as error:
                pause = patience.next_pause() if error.passing else None
                if pause is None:
                    raise
            time.sleep(pause)

    def _log(self, deployment: int) -> DeploymentLog:
        return DeploymentLog(self.store, deployment, self.log_limit)


class Telling:
    """Tells one deployment: runs each stage once, durably, and writes down what came of it."""

    def __init__(self, deploy: Deploy, deployment: Deployment, log: DeploymentLog) -> None:
        self._store = deploy.store
        self._persistently = deploy.persistently
        self._patience = deploy.patience
        self._carrying = deploy.carrying
        self._report_fault = deploy.report_fault
        self._learn_secrets = deploy.launch.learn_secrets
        self._deployment = deployment
        self._log = log
        self._outputs: dict[Stage, Mapping[str, Any]] = {}
        self._performed: set[Stage] = set()
        self._looked = 0.0, False
        self._project, self._environment = self._persistently(
            lambda records: (
                records.projects.get(deployment.project),
                records.environments.get(deployment.project, deployment.environment),
            )
        )

    def __call__(self, stage: Stage, perform: Callable[[Scene], StageResult]) -> None:
        """Run a stage, or take what it left behind when it ran before; raise StageFailed if it did not go well."""
        told = self._once(stage, perform)
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
            records.deployments.hold(self._deployment.fence)
            if records.deployments.finish(self._deployment.id, state, stage, failure):
                records.register.add(finished(records, self._deployment.id))

        self._persistently(write)

    def _once(self, stage: Stage, perform: Callable[[Scene], StageResult]) -> dict[str, Any]:
        """Run a stage that has not ended yet; one that has gives what it left behind."""
        self._log.begin(stage)

        def begin(records: Records) -> StageRecord:
            now = time.monotonic()
            self._looked = now, records.deployments.hold(self._deployment.fence)
            return records.deployments.begin_stage(self._deployment.id, stage)

        begun = self._persistently(begin)
        return begun.result or self._perform(stage, perform, begun)

    def _perform(self, stage: Stage, perform: Callable[[Scene], StageResult], begun: StageRecord) -> dict[str, Any]:
        self._performed.add(stage)
        about = self._deployment
        result, failure, broke = StageResult(), None, False
        try:
            self._check_begun(begun)
            result = self._perform_patiently(stage, perform)
        except TakenOver:
            raise
        except Exception as error:
            if isinstance(error, PlatformBroke) and error.code in {STORE_AWAY, STORE_FULL}:
                raise  # nothing can be told of that; whoever reaches the database again goes on from here
            if isinstance(error, Cancelled):
                error = cancelled(self._persistently(lambda records: records.deployments.get(about.id).cancelled_by))
            failure, broke = failure_of(error, stage, self._log, self._report_fault)
        finally:
            self._carrying.at(self._deployment.id, None)  # what follows waits for the database, not for the stage
        return self._note_end(stage, result, failure, broke)

    def _check_begun(self, begun: StageRecord) -> None:
        if begun.hung:
            raise PlatformBroke(
                f"The stage {begun.name} hung: it did not even heed its time limit.",
                code=HUNG,
                hint="Something beneath the platform does not answer: see `branchline doctor`.",
            )
        if begun.attempts > MOST_ATTEMPTS:
            raise PlatformBroke(
                f"{MOST_ATTEMPTS} runners died in the stage {begun.name}.",
                code="stage_kills_runners",
                hint="See the runners' logs and the memory of their machine.",
            )
        if begun.attempts > 1:
            self._log.write("This stage begins again: the runner that was at it is gone.")

    def _perform_patiently(self, stage: Stage, perform: Callable[[Scene], StageResult]) -> StageResult:
        """Try again while a server beneath us does not answer: most outages are short."""
        limit = self._limit(stage)
        fence = self._deployment.fence
        cancellable = stage not in AFTER_SWITCH
        looked_at, cancel = self._looked
        if cancel and cancellable:
            raise cancelled()
        stop = StageInterrupt(self._store, fence, stage, limit, cancellable=cancellable, looked_at=looked_at)
        self._carrying.at(self._deployment.id, stage, limit)
        scene = Scene(self._store, self._deployment, self._project, self._environment, self._log, stop, self._outputs)
        patience = Patience(min(self._patience, limit))
        stop.check()
        while True:
            try:
                if stage in _SHOW_OUTPUT and Stage.START not in self._performed:
                    self._learn_secrets(scene)
                return perform(scene)
            except PlatformBroke as error:
                pause = patience.next_pause() if error.passing else None
                if pause is None:
                    raise
                self._log.write(f"{error.sentence} Trying again in {pause:g} s.")
                try:
                    stop.wait(pause)
                except DeploymentFailed as late:
                    if late.code != TIMED_OUT:
                        raise
                    raise error from late  # not the project was slow: the server never came back

    def _limit(self, stage: Stage) -> float:
        checkout = self._outputs.get(Stage.CHECKOUT)
        asked = checkout["manifest"]["timeouts"] if checkout else {}
        return float(asked.get(stage, TIME_LIMITS[stage]))

    def _note_end(self, stage: Stage, result: StageResult, failure: Failure | None, broke: bool) -> dict[str, Any]:
        self._log.end_stage()
        told = {"output": result.output, "failure": vars(failure) if failure else None, "broke": broke}
        if failure:
            state, note = StageState.BROKE if broke else StageState.FAILED, failure.sentence
        else:
            state = StageState.SKIPPED if result.skipped else StageState.PASSED
            note = self._log.clean(result.note)

        def write(records: Records) -> None:
            records.deployments.hold(self._deployment.fence)
            ended = records.deployments.end_stage(self._deployment.id, stage, state, note, told)
            if ended is not None:  # else the answer to an earlier try was lost, and what it wrote is there
                records.register.add(stage_ended(records, self._deployment, ended, failure))

        self._persistently(write)
        return told

    def _environment_now(self) -> Environment:
        about = self._deployment
        return self._persistently(lambda records: records.environments.get(about.project, about.environment))


_STILL_LIVE = (
    "Going back did not work either, so this release is still live: see the stage undo in the log. "
    "Deploy a commit that works."
)
