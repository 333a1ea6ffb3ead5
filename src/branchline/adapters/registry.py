"""The embedded registry's store: images are deleted over its API, their room is reclaimed by its own program."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import requests

from branchline.adapters.process import CommandFailed, ask
from branchline.domain.errors import PlatformBroke, Unreachable

_ACCEPT = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
    )
)
_ANSWER_SECONDS = 20.0
_RECLAIM_SECONDS = 300.0
"""Less than what a deployment has for publishing, which waits meanwhile."""


class RegistryArchive:
    """Port `ImageArchive`. `reclaim` is the command that collects garbage, run as whoever owns the store, in this
    `environment`.

    The registry must keep no cache of blobs, or it would offer what was collected.
    """

    def __init__(self, endpoint: str, reclaim: Sequence[str], environment: Mapping[str, str]) -> None:
        self._base = f"http://{endpoint}/v2"
        self._reclaim = tuple(reclaim)
        self._environment = dict(environment)
        self._session = requests.Session()
        self._session.trust_env = False  # it is on this machine: no proxy is on the way

    def prune(self, repository: str, keep: Collection[str]) -> list[str]:
        """Remove the images of a repository that are not among these references.

        Raises PlatformBroke (`registry_unreachable`, `registry_refused`).
        """
        removed: set[str] = set()
        for tag in self._tags(repository):
            about = self._ask("HEAD", f"/{repository}/manifests/{tag}")
            digest = about.headers.get("Docker-Content-Digest", "")
            reference = f"{repository}@{digest}"
            if about.status_code == requests.codes.ok and digest and reference not in {*keep, *removed}:
                self._ask("DELETE", f"/{repository}/manifests/{digest}")
                removed.add(reference)
        return sorted(removed)

    def reclaim(self) -> None:
        """Give back the room of what was removed; raises PlatformBroke where the program fails."""
        done = ask(self._reclaim, timeout=_RECLAIM_SECONDS, env=self._environment)
        if done.exit_code != 0:
            raise CommandFailed("The registry's garbage collection", done)

    def _tags(self, repository: str) -> list[str]:
        answer = self._ask("GET", f"/{repository}/tags/list")
        return list(answer.json()["tags"] or []) if answer.status_code == requests.codes.ok else []

    def _ask(self, method: str, path: str) -> requests.Response:
        """One call. What is not there (404) is no error: it may be gone already."""
        try:
            headers = {"Accept": _ACCEPT}
            answer = self._session.request(method, self._base + path, headers=headers, timeout=_ANSWER_SECONDS)
        except requests.RequestException:
            raise Unreachable("The registry cannot be reached.", code="registry_unreachable") from None
        if answer.status_code >= 400 and answer.status_code != requests.codes.not_found:
            raise PlatformBroke(f"The registry refused {method}: {answer.text[:200]}", code="registry_refused")
        return answer
