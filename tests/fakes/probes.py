"""Fake of Probes: every running container is healthy, until a test says otherwise."""

from __future__ import annotations

from branchline.domain.manifest import HealthCheck
from branchline.ports import Containers, Instance


class FakeProbes:
    """Answers as `answer` was told, by service; commands are asked of the containers, as the real one does."""

    def __init__(self, containers: Containers) -> None:
        self.containers = containers
        self.looked: list[tuple[str, HealthCheck]] = []
        self._answers: dict[str, list[tuple[bool, str]]] = {}

    def answer(self, service: str, *answers: tuple[bool, str]) -> None:
        """What the next probes of a service see, one after another; the last one stays."""
        self._answers[service] = list(answers)

    def probe(self, instance: Instance, check: HealthCheck) -> tuple[bool, str]:
        self.looked.append((instance.name, check))
        if check.command is not None:
            return self.containers.probe_command(instance, check.command, check.probe_timeout)
        if not self.containers.state(instance).running:
            return False, "connection refused"
        answers = self._answers.get(instance.service)
        if answers:
            return answers.pop(0) if len(answers) > 1 else answers[0]
        return True, "HTTP 200" if check.path else "accepts connections"
