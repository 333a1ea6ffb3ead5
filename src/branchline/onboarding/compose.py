"""Reads a Compose file: which services there are, what they run, and which are databases."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from branchline.manifest_yaml import NotYaml, read
from branchline.onboarding.dockerfile import health_path
from branchline.onboarding.repository import Repository
from branchline.onboarding.shell import Words, valid_port

FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_POSTGRES = re.compile(r"(?:^|/)(?:postgres(?:ql)?|postgis|pgvector|timescaledb(?:-ha)?)(?:$|[:@])")


@dataclass(frozen=True)
class ComposeService:
    """One service of a Compose file; `context` is None where it runs an image that others made."""

    name: str
    image: str = ""
    context: str | None = None
    dockerfile: str | None = None
    target: str | None = None
    command: Words | None = None
    port: int | None = None
    published: bool = False
    health_path: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_postgres(self) -> bool:
        """Whether this is a PostgreSQL server."""
        return self.context is None and bool(_POSTGRES.search(self.image))


@dataclass(frozen=True)
class Compose:
    """A Compose file; `fault` says why it could not be read."""

    file: str
    services: tuple[ComposeService, ...] = ()
    fault: str = ""


def find(repository: Repository) -> Compose | None:
    """The Compose file of a repository, if it has one."""
    file = repository.first(*FILES)
    text = repository.text(file) if file else None
    if file is None or text is None:
        return None
    try:
        data = read(text).data
    except NotYaml as error:
        return Compose(file, fault=f"line {error.place.line}: {error.message}")
    listed = data.get("services") if isinstance(data, dict) else None
    if not isinstance(listed, dict):
        return Compose(file, fault="it has no services")
    return Compose(file, tuple(_service(name, body) for name, body in listed.items() if isinstance(body, dict)))


def _service(name: str, body: dict[str, Any]) -> ComposeService:
    build = body.get("build")
    context = dockerfile = target = None
    if isinstance(build, str):
        context = build
    elif isinstance(build, dict):
        context = str(build.get("context") or ".")
        dockerfile = str(build["dockerfile"]) if build.get("dockerfile") else None
        target = str(build["target"]) if build.get("target") else None
    port, published = _port(body)
    return ComposeService(
        name=name,
        image=str(body.get("image") or ""),
        context=_relative(context),
        dockerfile=dockerfile,
        target=target,
        command=_command(body.get("command")),
        port=port,
        published=published,
        health_path=_health(body.get("healthcheck")),
        variables=_variables(body.get("environment")),
    )


def _relative(context: str | None) -> str | None:
    if context is None:
        return None
    return context.removeprefix("./").rstrip("/") or "."


def _command(command: object) -> Words | None:
    if isinstance(command, str) and command.strip():
        # Compose splits the line into words and runs them without a shell; `$$` is how it writes `$`.
        try:
            return tuple(shlex.split(command.replace("$$", "$")))
        except ValueError:
            return None
    if isinstance(command, list) and command and all(isinstance(word, str | int | float) for word in command):
        return tuple(str(word).replace("$$", "$") for word in command)
    return None


def _port(body: dict[str, Any]) -> tuple[int | None, bool]:
    """The port inside the container, and whether it is open to the outside."""
    for key in ("ports", "expose"):
        for entry in body.get(key) or [] if isinstance(body.get(key), list) else []:
            inner = entry.get("target") if isinstance(entry, dict) else re.split(r":(?![^{]*})", str(entry))[-1]
            if port := valid_port(str(inner).partition("/")[0]):
                return port, key == "ports"
    return None, False


def _health(healthcheck: object) -> str | None:
    test = healthcheck.get("test") if isinstance(healthcheck, dict) else None
    text = " ".join(str(word) for word in test) if isinstance(test, list) else str(test or "")
    return health_path(text)


def _variables(environment: object) -> dict[str, str]:
    if isinstance(environment, dict):
        return {str(key): "" if value is None else str(value) for key, value in environment.items()}
    if isinstance(environment, list):
        return {str(entry).partition("=")[0]: str(entry).partition("=")[2] for entry in environment}
    return {}
