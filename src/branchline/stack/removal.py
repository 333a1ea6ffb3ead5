"""Takes everything of one platform off the machine: what is in Docker by its label, and its home.

Run as `python -m branchline.stack.removal`, by `make clean`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial

from docker import DockerClient
from docker.errors import APIError, NotFound

from branchline.adapters.secret_files import remove_instance_files
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
        for name in remove_instance(layout.instance, settings.docker_host):
            say("removed", name)

    stop_with_environments(settings, say, out_of_docker)
    shutil.rmtree(settings.home)
    say("removed", str(settings.home))


def remove_instance(instance: str, endpoint: str = "") -> list[str]:
    """Remove what carries the instance's label or name; return what was removed.

    Where no engine answers there is nothing that could be removed but what is in memory.
    """
    remove_instance_files(instance)
    removed = []
    try:
        with engine(endpoint, REMOVAL_LIMIT) as docker:
            for name, remove in _belongings(docker, instance):
                try:
                    remove()
                except NotFound:
                    continue  # somebody else removed it in the meantime
                except APIError as error:
                    if error.status_code != 409:
                        raise
                    continue  # somebody else uses it
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
        yield f"image {(image.tags or [image.short_id])[0]}", partial(docker.images.remove, str(image.id), force=True)


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
