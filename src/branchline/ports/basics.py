"""What every call is given: where to write, and when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from branchline.domain.config import Secret


class Log(Protocol):
    """Where a stage's output goes: the deployment's log. Lines are redacted and bounded behind this."""

    def write(self, line: str) -> None:
        """Add one line; a trailing newline is not needed."""

    def hide(self, secrets: Sequence[Secret]) -> None:
        """From now on these values appear as `[hidden]`."""

    @property
    def last(self) -> str:
        """The last line that was not empty, as it stands in the log."""


class Interrupt(Protocol):
    """Says when to stop: somebody cancelled, the time limit passed, or another runner took over."""

    def check(self) -> None:
        """Raise when it is time to stop: Cancelled, DeploymentFailed `stage_timed_out`, PlatformBroke `taken_over`.

        Cheap enough to be called several times a second. Whoever waits or runs a child calls it.
        """

    def wait(self, seconds: float) -> None:
        """Sleep, but wake up and raise as `check` does."""
