"""The stages of a deployment, what each may take at the most, and what may come of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from branchline.domain.deployment import Failure


class Stage(StrEnum):
    """The steps of the story, in its order."""

    CHECKOUT = "checkout"
    BUILD = "build"
    TEST = "test"
    PUBLISH = "publish"
    PREPARE = "prepare"
    RELEASE = "release"
    START = "start"
    VERIFY = "verify"
    SWITCH = "switch"
    WATCH = "watch"
    DRAIN = "drain"
    UNDO = "undo"


class StageState(StrEnum):
    """What came of a stage: passed, failed (a result) or broke (an exception)."""

    RUNNING = "running"
    PASSED = "passed"
    SKIPPED = "skipped"
    FAILED = "failed"
    BROKE = "broke"


TIME_LIMITS: dict[Stage, float] = {
    Stage.CHECKOUT: 300,
    Stage.BUILD: 1800,
    Stage.TEST: 1800,
    Stage.PUBLISH: 600,
    Stage.PREPARE: 120,
    Stage.RELEASE: 900,
    Stage.START: 300,
    Stage.VERIFY: 3700,  # the healthchecks' own time limits are what counts here
    Stage.SWITCH: 30,
    Stage.WATCH: 3700,  # as long as the manifest's window
    Stage.DRAIN: 600,
    Stage.UNDO: 300,
}
"""Seconds; a manifest may set others for most of them under `timeouts`."""


MOST_ATTEMPTS = 10
"""Runners that may die in one stage; then the stage counts as what kills them, and breaks."""


AFTER_SWITCH = frozenset({Stage.WATCH, Stage.DRAIN, Stage.UNDO})
"""From here on the new release has traffic: cancelling would leave it to chance who serves."""


@dataclass(frozen=True)
class StageResult:
    """What a stage that went well leaves behind: plain JSON, so that any process can go on from it."""

    output: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    skipped: bool = False


class StageFailed(Exception):
    """A stage said no, or broke (`broke`): the story goes on with undoing."""

    def __init__(self, stage: Stage, failure: Failure, broke: bool) -> None:
        super().__init__(f"{stage}: {failure.sentence}")
        self.stage = stage
        self.failure = failure
        self.broke = broke
