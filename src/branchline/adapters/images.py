"""Images with Docker: built by BuildKit, kept in the registry, named by digest."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from docker.errors import APIError, ImageNotFound, NotFound

from branchline.adapters.docker_engine import DockerEngine, in_our_words
from branchline.adapters.image_build import build_command, builder_environment, failure, find_builder, find_dockerfile
from branchline.adapters.image_build_log import BuildLog
from branchline.adapters.image_transfer import pull, push
from branchline.adapters.process import run
from branchline.adapters.secret_files import SecretFiles
from branchline.domain.config import Secret
from branchline.domain.errors import BadInput, PlatformBroke
from branchline.ports import Interrupt, Log

_REFERENCE = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*@sha256:[0-9a-f]{64}")

_PRUNE_SECONDS = 600.0


class DockerImages:
    """Images by a Docker engine (`None`: DOCKER_HOST or the local socket) and a registry (`host[:port][/path]`).

    Builds get the CA bundle, where there is one, as the BuildKit secret `ca`.
    """

    def __init__(
        self,
        docker_host: str | None,
        registry: str,
        secret_files: SecretFiles,
        ca_bundle: Path | None = None,
    ) -> None:
        self._docker_host = docker_host
        self._engine = DockerEngine(docker_host)
        self._registry = registry.rstrip("/")
        self._ca_bundle = ca_bundle
        self._secret_files = secret_files

    @cached_property
    def _builder(self) -> str:
        return find_builder()

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
        """See ports.Images.

        Raises DeploymentFailed (`build_failed`, `no_dockerfile`, `no_build_target`, `base_image_unavailable`) or
        PlatformBroke (`no_builder`, `docker_unreachable`, `docker_disk_full`, `base_image_unavailable`).
        """
        file = find_dockerfile(context, dockerfile)
        # On a command line, or in a variable of a process, others could see the secrets.
        given: AbstractContextManager[Mapping[str, Path]] = nullcontext({})
        if secrets:
            given = self._secret_files.for_a_moment(secrets)
        with tempfile.TemporaryDirectory(prefix="branchline-build-") as folder, given as files:
            id_file = Path(folder, "id")
            command = build_command(
                self._builder,
                context.resolve(),
                dockerfile=file,
                target=target,
                args=args,
                tag=tag,
                labels=labels,
                secrets={**({"ca": self._ca_bundle} if self._ca_bundle else {}), **files},
                id_file=id_file,
            )
            shown = BuildLog(log)
            done = run(command, log=shown, stop=stop, env=builder_environment(self._docker_host))
            if done.exit_code != 0:
                raise failure(done, shown, target)
            return id_file.read_text().strip()

    @in_our_words
    def publish(self, image: str, repository: str, tag: str, log: Log, stop: Interrupt) -> str:
        """See ports.Images.

        Raises PlatformBroke: `image_gone` (it is not on this machine), `registry_unreachable`, `registry_refused`,
        `disk_full`, `docker_unreachable`.
        """
        try:
            self._engine.client.tag(image, f"{self._registry}/{repository}", tag, force=True)
        except (ImageNotFound, NotFound):
            raise PlatformBroke(
                f"The image {image[:80]} is not on this machine any more.", code="image_gone", hint="Deploy again."
            ) from None
        digest = push(self._engine, self._registry, repository, tag, log, stop)
        return f"{repository}@{digest}"

    @in_our_words
    def pull(self, reference: str, log: Log, stop: Interrupt) -> str:
        """See ports.Images. Asks the registry only for what is not here. Raises PlatformBroke as `publish` does."""
        if not _REFERENCE.fullmatch(reference):
            raise BadInput(
                f"{reference[:120]!r} names no published image.", code="bad_reference", hint="Deploy a release."
            )
        name = f"{self._registry}/{reference}"
        if self._about(name) is None:
            pull(self._engine, self._registry, reference, log, stop)
        return name

    @in_our_words
    def remove(self, name: str) -> None:
        """See ports.Images. An image that is given by its id loses all its tags first."""
        client = self._engine.client
        about = self._about(name)
        if about is None:
            return
        names = [*(about.get("RepoTags") or []), *(about.get("RepoDigests") or [])]
        going = [*names, name] if name == about["Id"] else [name]
        using = client.containers(all=True, filters={"ancestor": about["Id"]})
        used = {_repository(one["Image"]) for one in using if one["ImageID"] == about["Id"]}
        # Docker would take a name away all the same, and with it the digest that a restart asks for; other names of
        # the same image may go.
        if used and (used.intersection(map(_repository, going)) or set(names) <= set(going)):
            return
        for each in going:
            self._remove_name(each)

    @in_our_words
    def strays(self, keep: Collection[str], labels: Mapping[str, str]) -> list[list[str]]:
        """See ports.Images. What a container uses is none."""
        client = self._engine.client
        wanted = {f"{self._registry}/{reference}" for reference in keep}
        used = {container["ImageID"] for container in client.containers(all=True)}
        strays = []
        for image in client.images(filters={"label": [f"{name}={value}" for name, value in labels.items()]}):
            names = [*(image["RepoTags"] or []), *(image["RepoDigests"] or [])]
            mine = [name for name in names if name.startswith(f"{self._registry}/")]
            if mine and image["Id"] not in used and not wanted.intersection(mine):
                strays.append(mine)
        return strays

    @in_our_words
    def bound_cache(self, size: int) -> int:
        """See ports.Images. What a running build uses stays."""
        client, bound = self._engine.client, {"keep-storage": str(size), "all": "true"}
        answer = client.post(self._engine.url("/build/prune"), params=bound, timeout=_PRUNE_SECONDS)
        answer.raise_for_status()
        return int(answer.json().get("SpaceReclaimed") or 0)

    def _remove_name(self, name: str) -> None:
        try:
            self._engine.client.remove_image(name)
        except APIError as error:
            # 404: it went with another name; 409: another image is built on it, or a container came just now.
            if error.status_code not in {404, 409}:
                raise

    def _about(self, name: str) -> dict[str, Any] | None:
        """What the engine knows of an image, or None where there is none of this name."""
        with suppress(ImageNotFound):
            about: dict[str, Any] = self._engine.client.inspect_image(name)  # type: ignore[no-untyped-call]
            return about
        return None


def _repository(name: str) -> str:
    """An image's name without its tag or digest."""
    name = name.partition("@")[0]
    head, _, tag = name.rpartition(":")
    return name if not head or "/" in tag else head
