"""Shows a deployment as it happens: a calm transcript, line by line, for pipes, git hooks and CI."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Self, TextIO

from branchline.cli.lazily import wire
from branchline.cli.render import Style, duration, paint, printable, sign
from branchline.domain.deployment import State
from branchline.domain.environment import short
from branchline.domain.pipeline import StageState

PATIENCE_SECONDS = 2.0
"""A stage that says nothing for this long is named before it ends."""
STAGE_WIDTH = 8
LONGEST_LINE = 4000

_SIGNS = {
    StageState.PASSED: ("✓", "+", Style.GOOD),
    StageState.SKIPPED: ("–", "-", Style.DIM),
    StageState.FAILED: ("✗", "x", Style.BAD),
    StageState.BROKE: ("✗", "x", Style.BAD),
    StageState.RUNNING: ("▸", ">", Style.STRONG),
}


class Progress:
    """The transcript of one deployment: a line for each stage as it ends, its log lines above as they come.

    A stage gets a heading once it has log lines, or has run for a while. Telling a stage twice, as a resumed stream
    does, shows it once.
    """

    def __init__(self, out: TextIO | None = None, *, patience: float = PATIENCE_SECONDS) -> None:
        self._out = out or sys.stdout
        self._patience = patience
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._headed: str | None = None
        self._ended: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calm()

    def begin(self, deployment: wire.DeploymentView) -> None:
        """Say what is deployed where."""
        subject = f" “{printable(deployment.subject)}”" if deployment.subject else ""
        head = f"Deployment {deployment.id}: {deployment.project} {self._sign('→', '->')} {deployment.environment}"
        source = f"{short(deployment.ref)} at {deployment.commit[:8]}"
        with self._lock:
            self._write([f"{self._paint(head, Style.STRONG)}, {printable(source)}{subject}", ""])
            if deployment.state is State.QUEUED:
                self._await("queued", deployment.requested_at, "waiting for its turn")

    def show(self, events: Sequence[wire.LogEvent]) -> None:
        """Show events that arrived together."""
        with self._lock:
            lines: list[str] = []
            for event in events:
                if event.line:
                    lines += self._log_line(event.line)
                elif event.stage:
                    lines += self._stage(event.stage)
            self._write(lines)

    def notice(self, text: str) -> None:
        """Say something about the watching itself."""
        with self._lock:
            self._write([self._paint(f"  ({text})", Style.WARNING)])

    def end(self, deployment: wire.DeploymentView) -> None:
        """Say how it ended."""
        with self._lock:
            self._calm()
            self._write(["", *self._summary(deployment)])

    # --- lines -------------------------------------------------------------------------------------------------------

    def _log_line(self, line: wire.LogLine) -> list[str]:
        text = printable(line.text)
        if len(text) > LONGEST_LINE:
            text = f"{text[:LONGEST_LINE]}… ({len(text) - LONGEST_LINE} more characters)"
        self._calm()
        return [*self._heading(line.stage), self._paint(f"    {text}".rstrip(), Style.DIM)]

    def _stage(self, stage: wire.StageView) -> list[str]:
        if stage.name in self._ended:
            return []
        if stage.state is StageState.RUNNING:
            self._await(stage.name, stage.started_at)
            return []
        self._calm()
        self._ended.add(stage.name)
        self._headed = None
        seconds = stage.seconds
        if seconds is None and stage.finished_at:
            seconds = (stage.finished_at - stage.started_at).total_seconds()
        time_taken = duration(seconds) if seconds is not None else ""
        words = {
            StageState.SKIPPED: "skipped",
            StageState.FAILED: f"failed after {time_taken}",
            StageState.BROKE: f"broke after {time_taken}",
        }.get(stage.state, time_taken)
        note = f": {printable(stage.note)}" if stage.note else ""
        if stage.state is StageState.PASSED:
            note = f"  {self._paint(printable(stage.note), Style.DIM)}" if stage.note else ""
        return [f"{self._mark(stage.state)} {stage.name.ljust(STAGE_WIDTH)}  {words}{note}".rstrip()]

    def _heading(self, name: str, words: str = "") -> list[str]:
        if self._headed == name:
            return []
        self._headed = name
        return [f"{self._mark(StageState.RUNNING)} {name.ljust(STAGE_WIDTH)}  {words}".rstrip()]

    def _summary(self, deployment: wire.DeploymentView) -> list[str]:
        name = f"Deployment {deployment.id}"
        total = ""
        if deployment.finished_at:
            total = f" after {duration((deployment.finished_at - deployment.requested_at).total_seconds())}"
        what = f"{deployment.project} {self._sign('→', '->')} {deployment.environment}"
        where = f" at {deployment.failed_stage}" if deployment.failed_stage else ""
        failure = deployment.failure
        because = f": {printable(failure.sentence)}" if failure else "."
        log = f"  Its log: branchline deployments logs {deployment.id}"
        match deployment.state:
            case State.SUCCEEDED:
                live = [f"{self._mark(StageState.PASSED)} {name} succeeded{total}: {what} is live."]
                return [*live, f"  {deployment.url}"] if deployment.url else live
            case State.SUPERSEDED:
                lines = [f"{self._mark(StageState.SKIPPED)} {name} was superseded{total}: a newer one takes its place."]
                newer = deployment.superseded_by
                return [*lines, f"  Follow that one: branchline deployments logs {newer} --follow"] if newer else lines
            case State.CANCELLED:
                lines = [f"{name} was cancelled{where}{total}{because}"]
            case State.UNDONE:  # the hint says what is live now
                lines = [f"{name} was undone{where}{total}{because}"]
            case State.BROKEN:
                lines = [f"{name} broke{where}{total}{because}", "  The platform is at fault, not the project."]
            case _:
                lines = [f"{name} failed{where}{total}{because}"]
        if failure and failure.hint:
            lines.append(f"  {self._paint('Hint:', Style.WARNING)} {printable(failure.hint)}")
        return [f"{self._mark(StageState.FAILED)} {lines[0]}", *lines[1:], log]

    # --- the screen --------------------------------------------------------------------------------------------------

    def _await(self, name: str, since: datetime, words: str = "") -> None:  # noqa: ARG002 for those who show it
        """Something goes on since then: name it if nothing more is heard of it for a while."""
        self._calm()
        if self._headed == name:
            return

        def announce() -> None:
            with self._lock, suppress(OSError):  # a reader who left is noticed by the next line of the main thread
                if self._timer is timer:
                    self._write(self._heading(name, words))

        timer = self._timer = threading.Timer(self._patience, announce)
        timer.daemon = True
        timer.start()

    def _calm(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _mark(self, state: StageState) -> str:
        unicode, ascii_, style = _SIGNS[state]
        return self._paint(self._sign(unicode, ascii_), style)

    def _sign(self, unicode: str, ascii_: str) -> str:
        return sign(unicode, ascii_, self._out)

    def _paint(self, text: str, style: Style) -> str:
        return paint(text, style, self._out)

    def _write(self, lines: Sequence[str]) -> None:
        if lines:
            self._out.write("\n".join(lines) + "\n")
            self._out.flush()
