"""The transcript in a terminal: log lines scroll by, and a line at the bottom says what runs and for how long."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from branchline.cli.progress import Progress
from branchline.cli.render import duration

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
ASCII_FRAMES = "|/-\\"
FRAMES_PER_SECOND = 10


class LiveProgress(Progress):
    """A Progress whose running stage moves at the bottom of the screen."""

    def __init__(self, out: TextIO | None = None) -> None:
        super().__init__(out)
        self._now: tuple[str, datetime] | None = None
        self._console = Console(file=out or sys.stdout, highlight=False, markup=False, emoji=False)
        self._frames = FRAMES if self._sign(FRAMES, "") else ASCII_FRAMES
        self._live = Live(
            get_renderable=self._bottom,
            console=self._console,
            refresh_per_second=FRAMES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._now = None
        self._live.stop()

    def _bottom(self) -> RenderableType:
        now = self._now
        if now is None:
            return Text()
        name, since = now
        frame = self._frames[int(self._console.get_time() * FRAMES_PER_SECOND) % len(self._frames)]
        taken = duration((datetime.now(UTC) - since).total_seconds())
        line = Text.assemble((frame, "cyan"), " ", (name, "bold"), "  ", (taken, "dim"))
        line.truncate(self._console.width, overflow="ellipsis")
        return line

    def _await(self, name: str, since: datetime, words: str = "") -> None:
        self._now = (f"{name}: {words}" if words else name, since if since.tzinfo else since.replace(tzinfo=UTC))

    def _write(self, lines: Sequence[str]) -> None:
        if lines:
            self._console.print(Text.from_ansi("\n".join(lines)), soft_wrap=True)
