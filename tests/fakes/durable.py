"""A durable engine in memory, which can be told to die."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any


class Killed(BaseException):
    """The process was killed here."""


class FakeDurable:
    """Remembers steps as JSON. `die_after` names a step that did its work but lost its result with the process."""

    def __init__(self) -> None:
        self.remembered: dict[str, str] = {}
        self.ran: list[str] = []
        self.die_before: str | None = None
        self.die_after: str | None = None

    def step(self, name: str, function: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        if name in self.remembered:
            return json.loads(self.remembered[name])
        if name == self.die_before:
            self.die_before = None
            raise Killed(name)
        self.ran.append(name)
        result = json.dumps(function())
        if name == self.die_after:
            self.die_after = None
            raise Killed(name)
        self.remembered[name] = result
        return json.loads(result)
