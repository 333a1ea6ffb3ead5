"""What the supervisor knows about each part, in files: for `status`, for `stop`, and for the next supervisor."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from branchline.domain.errors import Refused
from branchline.stack import files
from branchline.stack.process import Identity

SUPERVISOR = "supervisor"


class State(StrEnum):
    """Where a part stands."""

    WAITING = "waiting"
    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    EXTERNAL = "external"
    STOPPING = "stopping"


@dataclass(frozen=True)
class Entry:
    """One part. `since` is when it came into this state, in seconds since 1970; `order` counts in order of start."""

    part: str
    state: State
    order: int = 0
    identity: Identity | None = None
    since: float = field(default_factory=time.time)
    took: float = 0.0
    restarts: int = 0
    reason: str = ""

    @property
    def up(self) -> bool:
        """Whether it was ready when this was written."""
        return self.state in {State.UP, State.EXTERNAL}

    @property
    def alive(self) -> bool:
        """Whether the process that is written down here still runs."""
        return self.identity is not None and self.identity.alive


def not_yours(home: Path, path: Path) -> Refused:
    """What somebody is told who is not the user that the platform in `home`, and `path` in it, belong to."""
    return Refused(
        f"The platform in {home} belongs to {path.owner()}.",
        code="not_your_platform",
        hint=f"Run this as {path.owner()}.",
    )


class Ledger:
    """One small file a part, written in one move."""

    def __init__(self, run: Path) -> None:
        """`run` is the home's folder for what changes from start to start.

        Raises Refused (`not_your_platform`) where another user's platform is in it.
        """
        self._folder = run / "parts"
        if self._folder.exists() and not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK):
            raise not_yours(run.parent, self._folder)

    def write(self, entry: Entry) -> None:
        """Keep the entry in place of the part's earlier one."""
        files.write(self._file(entry.part), json.dumps(asdict(entry)), lasting=False)

    def read(self, part: str) -> Entry | None:
        """The part's entry; None where there is none, or none that can be read (a power cut leaves such)."""
        try:
            stored = json.loads(self._file(part).read_text())
            identity = stored.pop("identity")
            state = State(stored.pop("state"))
            return Entry(**stored, state=state, identity=Identity(**identity) if identity else None)
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def entries(self) -> list[Entry]:
        """Every part's entry in order of start, without the supervisor's own."""
        names = [file.stem for file in self._folder.glob("*.json") if file.stem != SUPERVISOR]
        return sorted(filter(None, map(self.read, names)), key=lambda entry: entry.order)

    def forget(self, part: str) -> None:
        """Remove the part's entry."""
        self._file(part).unlink(missing_ok=True)

    def _file(self, part: str) -> Path:
        return self._folder / f"{part}.json"
