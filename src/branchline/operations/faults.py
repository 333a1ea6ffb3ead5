"""What a stage's exception means for its readers: code, sentence, hint, and whose fault it is."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable
from uuid import uuid4

from branchline.domain.deployment import Failure
from branchline.domain.errors import BranchlineError, PlatformBroke
from branchline.domain.pipeline import Stage
from branchline.operations.journal import DeploymentLog
from branchline.operations.scene import TIMED_OUT

HUNG = "stage_hung"

_LAST_LINES = 3
_LINE_SHOWN = 200
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def failure_of(
    error: Exception, stage: Stage, log: DeploymentLog, report_fault: Callable[[str, str], None]
) -> tuple[Failure, bool]:
    """The failure, and whether the stage broke: then the project is not to blame."""
    if isinstance(error, BranchlineError):
        hint = error.hint
        if error.code in {TIMED_OUT, HUNG}:  # nobody knows what it was waiting for, but what it was at
            hint = f"{_last_words(log)} {hint}"
        # A container's own words may be in it, and a container knows secrets.
        return Failure(error.code, log.clean(error.sentence), log.clean(hint)), isinstance(error, PlatformBroke)
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return _no_space(stage), True
    # The story must end well-told, whatever a stage did not foresee.
    incident = uuid4().hex[:8]
    report_fault(incident, "".join(traceback.format_exception(error)))
    return _internal(stage, incident), True


def _last_words(log: DeploymentLog) -> str:
    lines = log.last_lines(_LAST_LINES)
    shown = [line.strip() if len(line) <= _LINE_SHOWN else f"{line[:_LINE_SHOWN].strip()}…" for line in lines]
    return f"It last said: {' | '.join(shown)} —" if shown else "It said nothing."


def _no_space(stage: Stage) -> Failure:
    return Failure(
        "no_space",
        f"The platform's disk is full: the stage {stage} could not write.",
        "Make room where BRANCHLINE_HOME and the folder for temporary files are, then deploy again.",
    )


def _internal(stage: Stage, incident: str) -> Failure:
    return Failure(
        "internal",
        f"The platform met a fault of its own in the stage {stage}.",
        f"Nothing of yours caused it. The runner's log has the details under incident {incident}.",
    )
