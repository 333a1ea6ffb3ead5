"""Fakes of Log and Interrupt."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from branchline.domain.config import Secret
from branchline.domain.errors import Cancelled


class FakeLog:
    """Keeps lines in a list."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.hidden: list[Secret] = []

    def write(self, line: str) -> None:
        self.lines.append(line)

    def hide(self, secrets: Sequence[Secret]) -> None:
        self.hidden.extend(secrets)

    @property
    def last(self) -> str:
        return next((line for line in reversed(self.lines) if line.strip()), "")

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class FakeInterrupt:
    """Never stops, until `cancel()` is called or `after` seconds passed."""

    def __init__(self, after: float | None = None) -> None:
        self._event = threading.Event()
        self._deadline = None if after is None else time.monotonic() + after

    def cancel(self) -> None:
        self._event.set()

    def check(self) -> None:
        if self._event.is_set() or (self._deadline is not None and time.monotonic() > self._deadline):
            raise Cancelled("Somebody cancelled the deployment.")

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            self._event.wait(min(left, 0.05))
        self.check()
