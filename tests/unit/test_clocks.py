"""Clocks: the machine's may jump, so nothing measures how long something takes by it."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

import branchline
from branchline.domain.deployment import State
from tests.unit.test_deploy import World

WALL = re.compile(r"\btime\.time(?:_ns)?\(|\bdatetime\.(?:now|utcnow|today)\(|\btime\.(?:localtime|gmtime|strftime)\(")

MOMENTS = {
    "adapters/caddy_log.py": "compared with what Caddy wrote: a jump back within the window blinds the count of 5xx, "
    "not the probes",
    "adapters/caddy_routes.py": "names of generations: a jump removes a replaced one sooner or later, never a live one",
    "adapters/identity.py": "when a token begins to count, for a server of its own clock",
    "cli/live.py": "what is shown to people of the server's own times",
    "operations/config_ledger.py": "whether whoever began a change is still at it, against the time the database wrote",
    "operations/housekeeping.py": "the age of logs, in days",
    "operations/journal.py": "when a line was written",
    "operations/sealing.py": "when a seal was made, which is signed",
    "cli/audit.py": "how long ago a reader wants to look, against the time that the database wrote",
    "operations/tokens.py": "when a token expires, in days",
    "runner.py": "the sign of life, which is read by another process",
    "server/attempts.py": "when the next attempt counts, which the library says as a moment",
    "server/dashboard/shown.py": "what is shown to people",
    "server/dashboard/timeline.py": "what is shown to people",
    "stack/control.py": "when a line was written",
    "stack/doctor.py": "that a clock was set back",
    "stack/key_files.py": "the age of keys, in days",
    "stack/openbao_rules.py": "when a token begins to count",
    "stack/programs.py": "the sign of life: a jump makes one look wrong, and the next one is right again",
    "store/database.py": "the age of logs, in days",
}
"""Where the wall's clock is read, and what for: moments that outlive a process, or that people read."""


def test_durations_are_not_measured_by_the_walls_clock() -> None:
    root = Path(branchline.__file__).parent
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if WALL.search(path.read_text())}
    assert found <= set(MOMENTS), "time.monotonic() measures durations; a moment belongs into the table"


def test_a_deployment_does_not_notice_that_the_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, now, jumps = World(tmp_path), time.time, random.Random(7)
    began = time.monotonic()
    monkeypatch.setattr(time, "time", lambda: now() + jumps.uniform(-1e7, 1e7))
    first, second = world.deploy(), world.deploy()
    assert (first.state, second.state) == (State.SUCCEEDED, State.SUCCEEDED)
    assert time.monotonic() - began < 20
