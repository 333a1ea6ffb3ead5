"""The containers of all environments together: stopped with the platform where that is asked, started again with it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound

from branchline.layout import Layout
from branchline.stack import files
from branchline.stack.docker import INSTANCE_LABEL, engine
from branchline.stack.part import NotReady, Part

STOP_LIMIT = 120
AT_ONCE = 8


START_LIMIT = 60.0


def being_started(layout: Layout) -> Callable[[], bool]:
    """Tells whether the stack is at starting again what `stop` has stopped; to be called when the platform comes up.

    In START_LIMIT seconds that is done, or something keeps it from that which others may mend.
    """
    until = time.monotonic() + START_LIMIT
    return lambda: time.monotonic() < until and _stopped(layout).exists()


def _stopped(layout: Layout) -> Path:
    return layout.run / "stopped-containers.json"


class Environments(Part):
    """Not a server: what runs in Docker on behalf of the platform, which outlives its stop unless told otherwise."""

    name = "environments"
    needs = ("bridge", "postgres-nonprod", "postgres-production")
    has_process = False

    def __init__(self, layout: Layout, endpoint: str = "") -> None:
        self._instance = layout.instance
        self._endpoint = endpoint
        self._stopped = _stopped(layout)

    @property
    def endpoint(self) -> str:
        return f"containers labelled {INSTANCE_LABEL}={self._instance}"

    def prepare(self) -> None:
        """Start what `stop` stopped, and nothing else."""
        if not self._stopped.exists():
            return
        names: list[str] = json.loads(self._stopped.read_text())
        with engine(self._endpoint, STOP_LIMIT) as docker, ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: self._start(docker, name), names))
        self._stopped.unlink()

    def command(self) -> None:
        return None

    def check(self) -> None:
        """They are each their deployment's business; all that is asked here is whether they can be seen."""
        with engine(self._endpoint, 2):
            return

    def stop(self) -> int:
        """Stop all of them, each with the grace that it was given, and remember which; return how many."""
        with engine(self._endpoint, STOP_LIMIT) as docker:
            running = docker.containers.list(filters={"label": f"{INSTANCE_LABEL}={self._instance}"})
            before: list[str] = json.loads(self._stopped.read_text()) if self._stopped.exists() else []
            names = sorted({*before, *(str(container.name) for container in running)})
            files.write(self._stopped, json.dumps(names))
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda container: container.stop(), running))
        return len(running)

    @staticmethod
    def _start(docker: Any, name: str) -> None:
        try:
            docker.containers.get(name).start()
        except NotFound:
            return  # its environment was removed in the meantime
        except APIError as error:
            if "bind source path does not exist" in str(error.explanation):
                return  # the machine was restarted, and its secrets were in memory: a runner writes them and starts it
            raise NotReady(f"{name} does not start: {error.explanation}") from None
