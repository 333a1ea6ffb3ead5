"""Images: built, published, kept and cleaned up."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from branchline.domain.config import Secret
from branchline.ports.basics import Interrupt, Log


class Images(Protocol):
    """Builds images and keeps them in the registry."""

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
        """Build with BuildKit, tag the image locally and return its id (`sha256:…`).

        Raises DeploymentFailed (`build_failed`) with the step that failed in the sentence.
        """

    def publish(self, image: str, repository: str, tag: str, log: Log, stop: Interrupt) -> str:
        """Push a local image as `repository:tag`; return the reference by digest, `repository@sha256:…`.

        The returned reference holds no registry host: the platform's registry may move.
        """

    def pull(self, reference: str, log: Log, stop: Interrupt) -> str:
        """Make sure that an image published by us is on this machine; return the name that containers start from."""

    def remove(self, name: str) -> None:
        """Remove a local image or tag; what is not there is fine.

        What a container uses stays, with all names of the repository that it was started from.
        """

    def strays(self, keep: Collection[str], labels: Mapping[str, str]) -> list[list[str]]:
        """What was published and lies here, but is not among these references: all published names of each image.

        Only of what was built with these labels: others may publish to the same registry.
        """

    def bound_cache(self, size: int) -> int:
        """Remove what was not used for longest from the build cache, down to `size` bytes; return how many went."""


class ImageArchive(Protocol):
    """The registry's own store, where it is ours to clean. Nobody may publish while it is."""

    def prune(self, repository: str, keep: Collection[str]) -> list[str]:
        """Remove the images of a repository that are not among these references; return what was removed."""

    def reclaim(self) -> None:
        """Give back the room of what was removed."""
