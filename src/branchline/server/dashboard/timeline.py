"""The stages of a deployment as a timeline: where each begins, how long it takes, and what is still to come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from branchline.domain.pipeline import Stage, StageState
from branchline.wire import DeploymentView

WIDTH = 1000.0
"""Of the whole timeline, in units of the drawing."""

NARROWEST = 6.0

MEANINGS = {
    Stage.CHECKOUT: "fetch the commit",
    Stage.BUILD: "build the image",
    Stage.TEST: "run the project's tests",
    Stage.PUBLISH: "record the release",
    Stage.PREPARE: "network, databases, config",
    Stage.RELEASE: "the release command",
    Stage.START: "start the containers",
    Stage.VERIFY: "wait until all are healthy",
    Stage.SWITCH: "send traffic to them",
    Stage.WATCH: "look on for a while",
    Stage.DRAIN: "retire what was live before",
    Stage.UNDO: "go back to what was live before",
}


@dataclass(frozen=True)
class Row:
    """One stage: `begin` and `width` are positions of its bar, `state` a StageState or `waiting`."""

    name: str
    state: str
    meaning: str
    note: str = ""
    seconds: float | None = None
    begin: float = 0.0
    width: float = 0.0
    attempts: int = 1


def timeline(deployment: DeploymentView, now: datetime | None = None) -> list[Row]:
    """A row for each stage that began, and while the deployment goes on for each that is to come."""
    moment = now or datetime.now(UTC)
    spans = [(stage.started_at, stage.finished_at or moment) for stage in deployment.stages]
    first = min((begin for begin, _ in spans), default=moment)
    last = max((end for _, end in spans), default=moment)
    scale = WIDTH / max((last - first).total_seconds(), 0.001)
    rows = []
    for stage, (begin, end) in zip(deployment.stages, spans, strict=True):
        seconds = max((end - begin).total_seconds(), 0.0)
        width = max(seconds * scale, NARROWEST)
        left = min((begin - first).total_seconds() * scale, WIDTH - width)
        skipped = stage.state is StageState.SKIPPED
        rows.append(
            Row(
                stage.name,
                stage.state,
                MEANINGS.get(Stage(stage.name), "") if stage.name in set(Stage) else "",
                stage.note,
                None if skipped else stage.seconds if stage.seconds is not None else seconds,
                max(left, 0.0),
                0.0 if skipped else width,
                stage.attempts,
            )
        )
    begun = {stage.name for stage in deployment.stages}
    if not deployment.state.final and Stage.UNDO not in begun:
        rows += [Row(s, "waiting", MEANINGS[s]) for s in Stage if s not in begun and s is not Stage.UNDO]
    return rows
