"""Takes everything of one platform off the machine: what is in Docker by its label, and its home.

Run as `python -m branchline.stack.removal`, by `make clean`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from docker import DockerClient
from docker.errors import APIError, NotFound

from branchline.domain.errors import BranchlineError
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack.control import stop_with_environments
from branchline.stack.docker import INSTANCE_LABEL, engine
from branchline.stack.keeper import Say
from branchline.stack.part import NotReady

REMOVAL_LIMIT = 120


def remove_platform(settings: Settings, say: Say) -> None:
    """Stop the platform of this home and remove it with all its data. Raises PlatformBroke (`not_set_up`)."""

    def out_of_docker(layout: Layout) -> None:
        for name in remove_instance(layout.instance, settings.docker_host, published(layout.home)):
            say("removed", name)

    stop_with_environments(settings, say, out_of_docker)
    shutil.rmtree(settings.home)
    say("removed", str(settings.home))


def published(home: Path) -> frozenset[str]:
    """The digests of all images that lie in the own registry of the platform in this home.

    By these its local images are known: their names do not tell them from those of another home, whose registry may
    have had the same port at another time.
    """
    revisions = home.glob("registry/data/docker/registry/v2/repositories/**/_manifests/revisions/sha256/*")
    return frozenset(f"sha256:{revision.name}" for revision in revisions)


def remove_instance(instance: str, endpoint: str = "", images: frozenset[str] = frozenset()) -> list[str]:
    """Remove what carries the instance's label or name, and images by their digests; return what was removed.

    Where no engine answers there is nothing that could be removed.
    """
    removed = []
    try:
        with engine(endpoint, REMOVAL_LIMIT) as docker:
            for name, remove in _belongings(docker, instance, images):
                try:
                    remove()
                except NotFound:
                    continue  # somebody else removed it in the meantime
                except APIError as error:
                    if error.status_code != 409:
                        raise
                    continue  # somebody else uses it: another name of the same image
                removed.append(name)
    except NotReady:
        return removed
    return removed


def _belongings(
    docker: DockerClient, instance: str, images: frozenset[str]
) -> Iterator[tuple[str, Callable[[], object]]]:
    """What there is and how it is removed, in the order in which it lets go of each other."""
    mine: dict[str, str | list[str] | bool] = {"label": f"{INSTANCE_LABEL}={instance}"}
    for container in docker.containers.list(all=True, filters=mine):
        yield f"container {container.name}", partial(container.remove, force=True, v=True)
    for network in docker.networks.list():
        if network.name == instance or (network.attrs.get("Labels") or {}).get(INSTANCE_LABEL) == instance:
            yield f"network {network.name}", network.remove
    for volume in docker.volumes.list(filters=mine):
        yield f"volume {volume.name}", partial(volume.remove, force=True)
    for image in docker.images.list() if images else []:
        digests: list[str] = image.attrs.get("RepoDigests") or []
        registries = {name.partition("/")[0] for name in digests if name.partition("@")[2] in images}
        for name in [*image.tags, *digests]:
            if registries and name.partition("/")[0] in registries | {"branchline-build", "branchline-test"}:
                yield f"image {name}", partial(docker.images.remove, name)


def main() -> int:
    """Remove the platform that BRANCHLINE_HOME names."""
    try:
        remove_platform(Settings(), lambda part, text: print(f"{part}: {text}", flush=True))
    except BranchlineError as error:
        if error.code == "not_set_up":
            return 0
        sys.stderr.write(f"{error.sentence} {error.hint}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
