"""Containers on their way out: asked to end, made to end, removed. What is gone already is fine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from docker.errors import APIError, NotFound

from branchline.adapters.docker_engine import DockerEngine

_REMOVAL_SECONDS = 30


def stop_all(engine: DockerEngine, containers: Sequence[Mapping[str, Any]], grace: float) -> None:
    """SIGTERM (or the image's STOPSIGNAL) to all at once, SIGKILL after `grace` seconds, then remove them."""

    def end(container: str) -> None:
        try:
            engine.client.stop(container, timeout=math.ceil(grace))
        except NotFound:
            return
        remove_container(engine, container)

    _all_at_once(end, containers)


def remove_all(engine: DockerEngine, containers: Sequence[Mapping[str, Any]]) -> None:
    """Kill and remove containers, all at once."""
    _all_at_once(lambda container: remove_container(engine, container), containers)


def remove_container(engine: DockerEngine, container: str) -> None:
    """Kill and remove a container; what is gone, or about to go, is fine."""
    limit = time.monotonic() + _REMOVAL_SECONDS
    while True:
        try:
            return engine.client.remove_container(container, force=True, v=True)
        except NotFound:
            return None
        except APIError as error:
            # Somebody else is removing it: wait until that is done, since its name and address may be used next.
            if error.status_code != 409 or time.monotonic() > limit:
                raise
            time.sleep(0.05)


def _all_at_once(action: Callable[[str], None], containers: Sequence[Mapping[str, Any]]) -> None:
    if containers:
        with ThreadPoolExecutor(len(containers), thread_name_prefix="stop") as pool:
            list(pool.map(action, [str(one["Id"]) for one in containers]))
