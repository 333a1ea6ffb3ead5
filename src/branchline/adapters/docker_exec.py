"""Commands in a running container, to see whether it is well."""

from __future__ import annotations

import time
from collections.abc import Sequence

from docker.errors import APIError

from branchline.adapters.docker_engine import DockerEngine, Output
from branchline.adapters.lines import Lines

_LOOK_SECONDS = 0.05


def probe(engine: DockerEngine, container: str, command: Sequence[str], timeout: float) -> tuple[bool, str]:
    """Whether a command exits with 0 within `timeout` seconds, and what it said last, or why not.

    One that takes too long is given up, but runs on: Docker has no way to end it without ending the container.
    """
    try:
        status, said = _run(engine, container, command, time.monotonic() + timeout)
    except TimeoutError:
        return False, f"no answer within {timeout:g} s"
    except APIError as error:
        if error.status_code in {404, 409}:  # gone, or stopped
            return False, "the container is not running"
        raise
    if status == 0:
        return True, said
    if "OCI runtime" in said and "executable file not found" in said:
        return False, f"the image has no command {command[0]!r}"
    return False, f"exited with {status}" + (f": {said}" if said else "")


def _run(engine: DockerEngine, container: str, command: Sequence[str], end: float) -> tuple[int, str]:
    """The exit status of a command and its last line that says something; raises TimeoutError at `end`."""
    run: str = engine.client.exec_create(container, list(command))["Id"]
    output = Output(engine, "POST", f"/exec/{run}/start", body={"Detach": False, "Tty": False})
    lines, last = Lines(), ""
    try:
        for piece in output.pieces(quiet=_LOOK_SECONDS):
            for line in lines.feed(piece[1]) if piece else ():
                last = line.strip() or last
            _check_time(end)
    finally:
        output.close()
    for line in lines.close():
        last = line.strip() or last
    while (about := engine.client.exec_inspect(run))["Running"] or about["ExitCode"] is None:
        _check_time(end)
        time.sleep(_LOOK_SECONDS)
    return int(about["ExitCode"]), last


def _check_time(end: float) -> None:
    if time.monotonic() > end:
        raise TimeoutError
