"""What the files of a language or framework say about an application; each detector returns one of these."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from branchline.onboarding.repository import Repository
from branchline.onboarding.shell import Words

HEALTH_NAMES = r"(?:healthz|livez|readyz|health-check|healthcheck|health|ping|_health|up|status/health)"


@dataclass
class Application:
    """An application of one kind. `starter` is a Dockerfile for it, where the kind is one that we have one for."""

    kind: str
    evidence: str
    command: Words | None
    port: int | None
    release: Words | None = None
    test: Words | None = None
    test_tools: bool = False
    """The tests need more than what runs in environments."""
    postgres: str = ""
    """The dependency that speaks to PostgreSQL."""
    health_path: str | None = None
    starter: str | None = None
    ignore: tuple[str, ...] = ()
    advice: list[str] = field(default_factory=list)

    @property
    def a_kind(self) -> str:
        """The kind with its article."""
        return f"{'an' if self.kind[0] in 'AEIOU' else 'a'} {self.kind}"


def route_in(sources: Iterable[str], *patterns: str) -> str | None:
    """The first path in the sources that one of the patterns finds; each has one group, the path."""
    for source in sources:
        for pattern in patterns:
            if found := re.search(pattern, source):
                return "/" + found[1].lstrip("/")
    return None


def texts(repository: Repository, paths: Iterable[str], most: int = 60) -> list[str]:
    """The contents of the first of these files."""
    found: list[str] = []
    for path in paths:
        if len(found) == most:
            break
        if text := repository.text(path):
            found.append(text)
    return found
