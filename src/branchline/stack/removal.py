"""Takes everything of one platform out of Docker: containers, networks, volumes and images, by the instance's label."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from docker import DockerClient
from docker.errors import NotFound

from branchline.stack.docker import INSTANCE_LABEL, engine
from branchline.stack.part import NotReady


def remove_instance(instance: str, endpoint: str = "") -> list[str]:
    """Remove what carries the instance's label or name; return the names of what was removed.

    Where no engine answers there is nothing that could be removed.
    """
    removed = []
    try:
        with engine(endpoint, 120) as docker:
            for name, remove in _belongings(docker, instance):
                try:
                    remove()
                except NotFound:
                    continue  # somebody else removed it in the meantime
                removed.append(name)
    except NotReady:
        return removed
    return removed


def _belongings(docker: DockerClient, instance: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """What there is and how it is removed, in the order in which it lets go of each other."""
    mine: dict[str, str | list[str] | bool] = {"label": f"{INSTANCE_LABEL}={instance}"}
    for container in docker.containers.list(all=True, filters=mine):
        yield f"container {container.name}", partial(container.remove, force=True, v=True)
    for network in docker.networks.list():
        if network.name == instance or (network.attrs.get("Labels") or {}).get(INSTANCE_LABEL) == instance:
            yield f"network {network.name}", network.remove
    for volume in docker.volumes.list(filters=mine):
        yield f"volume {volume.name}", partial(volume.remove, force=True)
    for image in docker.images.list(filters=mine):
        for name in image.tags or [str(image.id)]:
            yield f"image {name}", partial(docker.images.remove, name, force=True)
