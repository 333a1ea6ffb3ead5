"""The manifest `branchline.yaml`: what a project is made of. Its JSON Schema is generated from here."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from branchline.domain.config import is_platforms
from branchline.domain.environment import DEVELOP, Inherits
from branchline.domain.names import ENVIRONMENT_KEY, NAME
from branchline.domain.values import Command, Duration, Port, Prefix, Share, Size

FILE_NAME = "branchline.yaml"
MAX_REPLICAS = 8
MAX_ROUTES = 8

Name = Annotated[str, Field(pattern=NAME, max_length=32)]
Hostname = Annotated[
    str,
    Field(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", max_length=253),
]
Key = Annotated[str, Field(pattern=ENVIRONMENT_KEY, max_length=128)]
RelativePath = Annotated[str, Field(min_length=1, max_length=400)]


def _scalar_as_text(value: object) -> object:
    """YAML reads `DEBUG: 1` and `on: true` as numbers and booleans; an environment variable is text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


AdjustableStage = Literal["build", "test", "publish", "prepare", "release", "start", "switch", "drain"]
"""The stages whose time limit a manifest may set. `checkout` reads it only at its end; healthchecks and the window have
limits of their own."""

Text = Annotated[str, BeforeValidator(_scalar_as_text)]


class Part(BaseModel):
    """A part of the manifest: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Build(Part):
    """How the image is built."""

    context: RelativePath = Field(".", description="Folder that is sent to the build, relative to the repository.")
    dockerfile: RelativePath = Field("Dockerfile", description="Path of the Dockerfile within the context.")
    target: str | None = Field(None, description="Stage of the Dockerfile that runs in environments.")
    args: dict[str, Text] = Field(default_factory=dict, description="Build arguments; never put a secret here.")
    secrets: list[Key] = Field(
        default_factory=list,
        max_length=20,
        description="Keys of the config that the build gets, each as a BuildKit secret of the same id.",
    )

    @field_validator("context", "dockerfile")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/") or "\x00" in path:
            raise ValueError(f"{path!r} leaves the repository; give a path inside it")
        return path

    @field_validator("secrets")
    @classmethod
    def _not_ours(cls, secrets: list[str]) -> list[str]:
        if "ca" in secrets:
            raise ValueError("the platform gives builds a secret `ca` itself: the CA bundle")
        if twice := _first_twice(secrets):
            raise ValueError(f"{twice} is named twice")
        return secrets


class Test(Part):
    """The project's own tests, run inside the image before it is published."""

    target: str | None = Field(None, description="Stage of the Dockerfile that holds the tests' tools.")
    command: Command = Field(description="What to run; exit status 0 passes.")
    databases: list[Name] = Field(
        default_factory=list, description="Databases that the tests get an empty throw-away copy of."
    )


class HealthCheck(Part):
    """When a container counts as healthy. One of `path` (HTTP 2xx or 3xx), `tcp` or `command` (exit status 0)."""

    path: str | None = Field(None, pattern=r"^/\S*$", description="HTTP path that answers 2xx or 3xx.")
    tcp: bool = Field(False, description="The port accepts a connection.")
    command: Command | None = Field(None, description="A command in the container that exits with 0.")
    timeout: Duration = Field(60.0, description="How long the container may take to become healthy.")
    interval: Duration = Field(1.0, ge=0.05, description="Time between two probes.")
    probe_timeout: Duration = Field(5.0, gt=0, description="How long one probe may take.")
    healthy_after: int = Field(1, ge=1, le=100, description="Probes in a row that must pass.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum((self.path is not None, self.tcp, self.command is not None)) != 1:
            raise ValueError("a healthcheck has exactly one of path, tcp and command")
        return self


class Limits(Part):
    """What one container may use at the most."""

    cpus: Annotated[float, Field(gt=0, le=512)] | None = Field(None, description="Processor cores.")
    memory: Size | None = Field(None, description="Memory; the kernel ends what takes more.")
    pids: Annotated[int, Field(ge=16)] = Field(4096, description="Processes and threads.")

    @field_validator("memory")
    @classmethod
    def _docker_minimum(cls, memory: int | None) -> int | None:
        if memory is not None and memory < 6 * 1024 * 1024:
            raise ValueError("memory must be at least 6M, the least that Docker accepts")
        return memory


class Resources(Part):
    """Resources of each container, as in Compose."""

    limits: Limits = Field(default_factory=Limits)


class Deploy(Part):
    """How many containers, and how large, as in Compose."""

    replicas: int = Field(1, ge=1, le=MAX_REPLICAS, strict=True, description="Containers of this service.")
    resources: Resources = Field(default_factory=Resources)


class Service(Part):
    """A process type of the project: web, worker, …"""

    command: Command = Field(description="What runs, in exec form: no shell is in between.")
    port: Port | None = Field(None, description="Where the service listens, inside its container.")
    routes: list[Prefix] = Field(default_factory=list, description="Path prefixes that the proxy sends here.")
    healthcheck: HealthCheck | None = Field(
        None, description="Default: `tcp` where there is a port, else still running after two seconds."
    )
    environment: dict[str, Text] = Field(
        default_factory=dict, description="Plain settings; whatever is secret belongs into the config."
    )
    deploy: Deploy = Field(default_factory=Deploy)
    stop_grace_period: Duration = Field(30.0, description="Time between SIGTERM and SIGKILL, and for draining.")

    @field_validator("environment")
    @classmethod
    def _keys(cls, environment: dict[str, str]) -> dict[str, str]:
        for key in environment:
            if not re.match(ENVIRONMENT_KEY, key):
                raise ValueError(f"{key!r} cannot name an environment variable")
        return environment

    @model_validator(mode="after")
    def _port_where_needed(self) -> Self:
        if self.routes and self.port is None:
            raise ValueError("a service with routes needs a port")
        probe = self.healthcheck
        if probe and (probe.path or probe.tcp) and self.port is None:
            raise ValueError("an HTTP or TCP healthcheck needs a port")
        return self


class Database(Part):
    """A database that every environment gets for itself."""

    engine: Literal["postgres"] = "postgres"
    variable: str = Field("DATABASE_URL", pattern=ENVIRONMENT_KEY, description="Variable that carries its URL.")


class ConfigKeys(Part):
    """The keys of the config that the project's programs read."""

    required: list[Key] = Field(
        default_factory=list, max_length=500, description="Keys without which nothing is deployed."
    )
    optional: dict[Key, Text] = Field(
        default_factory=dict, max_length=500, description="Keys that may be missing, with what holds then."
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if twice := _first_twice([*self.required, *self.optional]):
            raise ValueError(f"{twice} is named twice under config")
        return self


class On(Part):
    """The ref that an environment follows: a branch by its name, or tags by a pattern."""

    branch: str | None = Field(None, min_length=1, description="Name of the branch.")
    tag: str | None = Field(None, min_length=1, description='Pattern of the tags, such as "v*".')

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.branch is None) == (self.tag is None):
            raise ValueError("give either a branch or a tag")
        if self.branch is not None and any(sign in self.branch for sign in "*?["):
            raise ValueError("a branch is given by its whole name here; patterns work for tags")
        return self

    def __str__(self) -> str:
        return f"branch {self.branch}" if self.branch is not None else f"tag {self.tag}"


class EnvironmentRule(Part):
    """Which ref an environment follows, and under which hostnames it answers."""

    on: On
    inherits: Inherits | None = Field(
        None,
        description="Whose config lies beneath its own: `develop` (the default), `common` (the default of develop and "
        "staging) or `nothing` (production, always).",
    )
    domains: list[Hostname] = Field(
        default_factory=list, max_length=8, description="Further hostnames, besides the one every environment gets."
    )


class Watch(Part):
    """The window after the switch in which a sick release is undone by itself."""

    window: Duration = Field(10.0, le=3600, description="How long to watch.")
    failures: int = Field(3, ge=1, description="Failed probes in a row of one container that undo the release.")
    errors: Share = Field(0.2, description="Share of requests answered with 5xx that undoes the release.")
    requests: int = Field(20, ge=1, description="Fewer requests than this say nothing about a share.")


class Manifest(Part):
    """What a project is made of, and which ref goes where."""

    project: Name = Field(description="The name that the platform knows the project by.")
    build: Build = Field(default_factory=Build)
    test: Test | None = None
    release: Command | None = Field(
        None, description="Run once per deployment in the new image before it starts: migrations."
    )
    services: dict[Name, Service] = Field(min_length=1, max_length=20)
    databases: dict[Name, Database] = Field(default_factory=dict, max_length=8)
    config: ConfigKeys = Field(default_factory=ConfigKeys)
    secrets: Literal["environment", "files"] = Field(
        "environment",
        description="How containers get the config and their databases' URLs: as environment variables, or as files in "
        "/run/secrets, which are in memory (the machine's swap, if it has any, should be off or encrypted).",
    )
    environments: dict[Name, EnvironmentRule] = Field(
        default_factory=lambda: {"develop": EnvironmentRule(on=On(branch="develop"))}, min_length=1
    )
    watch: Watch = Field(default_factory=Watch)
    timeouts: dict[AdjustableStage, Duration] = Field(
        default_factory=dict, description="Time limits of stages, where the defaults do not fit."
    )

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, data: object) -> object:
        """Releases may be stored with `timeouts.checkout`, which manifests could name once and nothing heeded."""
        if isinstance(data, dict) and isinstance(limits := data.get("timeouts"), dict) and "checkout" in limits:
            return {**data, "timeouts": {stage: limit for stage, limit in limits.items() if stage != "checkout"}}
        return data

    @model_validator(mode="after")
    def _databases_fit(self) -> Self:
        for name in self.test.databases if self.test else []:
            if name not in self.databases:
                raise ValueError(f"test.databases names {name!r}, which is not under databases")
        if twice := _first_twice([database.variable for database in self.databases.values()]):
            raise ValueError(f"two databases write the variable {twice}")
        return self

    @model_validator(mode="after")
    def _config_fits(self) -> Self:
        written = {database.variable for database in self.databases.values()}
        for key in (*self.config.required, *self.config.optional):
            if key in written or is_platforms(key):
                raise ValueError(f"the platform writes {key} itself: take it out of config")
        return self

    @model_validator(mode="after")
    def _routes_fit(self) -> Self:
        prefixes = [prefix for service in self.services.values() for prefix in service.routes]
        if twice := _first_twice(prefixes):
            raise ValueError(f"the route {twice} is claimed twice")
        if len(prefixes) > MAX_ROUTES:
            raise ValueError(f"{len(prefixes)} routes are more than the {MAX_ROUTES} that an environment can have")
        return self

    @model_validator(mode="after")
    def _environments_fit(self) -> Self:
        for name, rule in self.environments.items():
            if name == "production" and rule.on.tag is None:
                raise ValueError('production moves by tag only: write `on: {tag: "v*"}`')
            if name != "production" and rule.on.tag is not None:
                raise ValueError(f"{name} cannot follow tags: only production does")
            if name == "production" and rule.inherits not in {None, Inherits.NOTHING}:
                raise ValueError("production inherits nothing: take `inherits` out")
            if name == DEVELOP and rule.inherits is Inherits.DEVELOP:
                raise ValueError("develop cannot inherit from itself")
        if twice := _first_twice([rule.on.branch for rule in self.environments.values() if rule.on.branch]):
            raise ValueError(f"the branch {twice} is claimed by two environments")
        return self


def _first_twice(values: list[str]) -> str | None:
    return next((value for value in values if values.count(value) > 1), None)
