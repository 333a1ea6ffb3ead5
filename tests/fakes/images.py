"""Fakes of Images and ImageArchive: read simple Dockerfiles, keep all in memory, and have troubles to order."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from branchline.domain.config import Secret
from branchline.domain.errors import BadInput, DeploymentFailed, PlatformBroke
from branchline.ports import Interrupt, Log

BASE_IMAGE = "branchline/python:bookworm"


@dataclass(frozen=True)
class FakeImage:
    """What was built: `steps` are the instructions of the stages that went into it."""

    id: str
    steps: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


class FakeImages:
    """Understands FROM, COPY, and RUN of `echo`, `exit`, `false` and `sleep`; other instructions do nothing.

    `trouble` is `unreachable` or `refused` when the registry shall not work; `in_use` are the names that containers
    were started by.
    """

    def __init__(self, registry: str = "registry.test:5000", bases: tuple[str, ...] = (BASE_IMAGE,)) -> None:
        self.local: dict[str, FakeImage] = {}
        self.names: dict[str, str] = {}
        self.published: dict[str, FakeImage] = {}
        self.in_use: set[str] = set()
        self.trouble = ""
        self.builds = 0
        self.cache_bound: int | None = None
        self.secrets: list[dict[str, str]] = []
        self._registry = registry
        self._bases = {"scratch", *bases}

    def lose_all(self) -> None:
        """Somebody emptied the machine and the registry."""
        for kept in (self.published, self.local, self.names):
            kept.clear()

    def build(
        self,
        context: Path,
        *,
        dockerfile: str,
        target: str | None,
        args: Mapping[str, str],
        tag: str,
        labels: Mapping[str, str],
        log: Log,
        stop: Interrupt,
        secrets: Mapping[str, Secret] | None = None,
    ) -> str:
        stop.check()
        self.secrets.append({name: secret.reveal() for name, secret in (secrets or {}).items()})
        file = (context / dockerfile).resolve()
        if not file.is_relative_to(context.resolve()) or not file.is_file():
            missing = f"There is no {dockerfile} in the build context."
            raise DeploymentFailed(missing, code="no_dockerfile", hint="Set build.dockerfile.")
        steps = self._steps(file.read_text(), target)
        for step in steps:
            log.write(f"[{len(steps)}] {step}")
            self._do(step, context, log, stop)
        files = sorted((str(path), path.read_bytes()) for path in context.rglob("*") if path.is_file())
        digest = hashlib.sha256(repr((steps, files, sorted(args.items()), sorted(labels.items()))).encode()).hexdigest()
        image = FakeImage(f"sha256:{digest}", steps, dict(labels))
        self.local[image.id] = image
        self.names[tag] = image.id
        self.builds += 1
        return image.id

    def publish(self, image: str, repository: str, tag: str, log: Log, stop: Interrupt) -> str:
        stop.check()
        found = self._find(image)
        if found is None:
            raise PlatformBroke("The image is not on this machine.", code="image_gone", hint="Deploy again.")
        self._ask_registry()
        log.write(f"Pushing {repository}:{tag}")
        reference = f"{repository}@{found.id}"
        self.published[reference] = found
        self.names[f"{self._registry}/{repository}:{tag}"] = found.id
        self.names[f"{self._registry}/{reference}"] = found.id
        return reference

    def pull(self, reference: str, log: Log, stop: Interrupt) -> str:
        stop.check()
        if not re.fullmatch(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*@sha256:[0-9a-f]{64}", reference):
            raise BadInput(f"{reference!r} names no image.", code="bad_reference", hint="Deploy a release.")
        name = f"{self._registry}/{reference}"
        if self._find(name) is None:
            self._ask_registry()
            if reference not in self.published:
                raise PlatformBroke("The registry does not have it.", code="image_gone", hint="Deploy again.")
            log.write(f"Pulling {reference}")
            image = self.published[reference]
            self.local[image.id] = image
            self.names[name] = image.id
        return name

    def remove(self, name: str) -> None:
        image = self._find(name)
        if image is None:
            return
        gone = {known for known, id in self.names.items() if name in {known, id}}
        # As Docker does: with the last tag of a repository its digests go too.
        repositories = {known.rpartition(":")[0] for known in gone}
        mine = {known for known, id in self.names.items() if id == image.id}
        gone |= {known for known in mine if known.partition("@")[0] in repositories and "@" in known}
        if self.in_use & mine and (self.in_use & gone or gone == mine):
            return
        for known in gone:
            del self.names[known]
        if image.id not in self.names.values():
            del self.local[image.id]

    def strays(self, keep: Collection[str], labels: Mapping[str, str]) -> list[list[str]]:
        wanted = {f"{self._registry}/{reference}" for reference in keep}
        strays = []
        for id in list(self.local):
            mine = [name for name, of in self.names.items() if of == id and name.startswith(f"{self._registry}/")]
            ours = labels.items() <= self.local[id].labels.items()
            if ours and mine and not self.in_use.intersection(mine) and not wanted.intersection(mine):
                strays.append(mine)
        return strays

    def bound_cache(self, size: int) -> int:
        """It has no cache to bound."""
        self.cache_bound = size
        return 0

    def _find(self, name: str) -> FakeImage | None:
        return self.local.get(self.names.get(name, name))

    def _ask_registry(self) -> None:
        if self.trouble:
            sentence = f"The registry {self._registry} is {self.trouble}."
            raise PlatformBroke(sentence, code=f"registry_{self.trouble}", hint="Docker said so.")

    def _steps(self, text: str, target: str | None) -> tuple[str, ...]:
        stages: dict[str, tuple[str, ...]] = {}
        name = ""
        for line in text.splitlines():
            if start := re.match(r"FROM (\S+)(?: [Aa][Ss] (\S+))?$", line):
                name = start[2] or str(len(stages))
                stages[name] = (*stages.get(start[1], ()), *(() if start[1] in stages else (line,)))
            elif stages and re.match(r"(ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|LABEL|RUN|USER|WORKDIR) ", line):
                stages[name] = (*stages[name], line)
            elif line.strip() and not line.startswith("#"):
                raise DeploymentFailed(f"The Dockerfile is wrong: {line!r}.", code="build_failed", hint="Mend it.")
        if not stages:
            raise DeploymentFailed("The Dockerfile is empty.", code="build_failed", hint="Mend it.")
        if target is not None and target not in stages:
            raise DeploymentFailed(f"The Dockerfile has no stage {target}.", code="no_build_target", hint="Name one.")
        return stages[target or name]

    def _do(self, step: str, context: Path, log: Log, stop: Interrupt) -> None:
        word, _, rest = step.partition(" ")
        if word == "FROM" and (base := rest.split()[0]) not in self._bases:
            raise DeploymentFailed(
                f"The base image {base} cannot be had.", code="base_image_unavailable", hint="See it."
            )
        if word == "COPY" and not (context / rest.split()[0]).exists():
            raise DeploymentFailed(
                f"The build failed at `{step}`: not found.", code="build_failed", hint="See the log."
            )
        if word == "RUN":
            for command in rest.split(" && "):
                name, _, value = command.partition(" ")
                if name == "echo":
                    log.write(f"  {value}")
                elif name == "sleep":
                    stop.wait(float(value))
                elif name in {"exit", "false"}:
                    sentence = f"The build failed at `{step}` (exit status {value or 1})."
                    raise DeploymentFailed(sentence, code="build_failed", hint="See the log.")


class FakeArchive:
    """Fake of ImageArchive: the registry of these images; `reclaimed` counts how often room was given back."""

    def __init__(self, images: FakeImages) -> None:
        self._images = images
        self.reclaimed = 0

    def prune(self, repository: str, keep: Collection[str]) -> list[str]:
        mine = [one for one in self._images.published if one.partition("@")[0] == repository]
        gone = sorted(one for one in mine if one not in keep)
        for one in gone:
            del self._images.published[one]
        return gone

    def reclaim(self) -> None:
        self.reclaimed += 1
