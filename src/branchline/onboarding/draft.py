"""What onboarding comes to: a draft of the manifest, what it rests on, and what the reader should know."""

from __future__ import annotations

from dataclasses import dataclass, field

from branchline.onboarding.shell import Words


@dataclass
class ServiceDraft:
    """A service as it will be written. `health_path` None with a port means that the port is probed."""

    name: str
    command: Words
    port: int | None = None
    routes: list[str] = field(default_factory=list)
    health_path: str | None = None
    variables: dict[str, str] = field(default_factory=dict)


@dataclass
class TestDraft:
    """How the project's tests are run."""

    command: Words
    target: str | None = None


@dataclass
class Draft:
    """A manifest to be, the files that go with it, and the reasons."""

    project: str
    context: str = "."
    dockerfile: str = "Dockerfile"
    target: str | None = None
    test: TestDraft | None = None
    release: Words | None = None
    services: list[ServiceDraft] = field(default_factory=list)
    database_variable: str | None = None
    develop: str = "develop"
    staging: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    """Files to write beside the manifest, by path; none of them exists."""
    found: list[tuple[str, str]] = field(default_factory=list)
    """What was found, and what follows from it."""
    advice: list[str] = field(default_factory=list)
    """What only a person can decide or mend."""

    def because(self, found: str, hence: str) -> None:
        """Note a reason, once."""
        if (found, hence) not in self.found:
            self.found.append((found, hence))

    def advise(self, sentence: str) -> None:
        """Note something to do, once."""
        if sentence not in self.advice:
            self.advice.append(sentence)

    def service(self, name: str) -> ServiceDraft | None:
        """The service of this name."""
        return next((service for service in self.services if service.name == name), None)
