"""One-off commands: run once, whoever has to carry on in between."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from docker.errors import APIError, NotFound

from branchline.adapters.docker_create import Maker, NewContainer
from branchline.adapters.docker_engine import DockerEngine, Output
from branchline.adapters.docker_remove import remove_container
from branchline.adapters.lines import Lines
from branchline.domain.errors import DeploymentFailed, PlatformBroke
from branchline.ports import Interrupt, Log

_GONE_QUIET_SECONDS = 2.0
_LOOK_SECONDS = 1.0

_CUT_OFF = {128 + signal.SIGTERM, 128 + signal.SIGKILL, 255}
"""Statuses of what Docker ended, or lost sight of, when it was itself ended."""


class OneOff:
    """Runs a command in a container of its own, and joins one that an earlier, killed runner has left."""

    def __init__(self, engine: DockerEngine, maker: Maker) -> None:
        self._engine = engine
        self._maker = maker

    def run(self, new: NewContainer, log: Log, stop: Interrupt) -> int:
        """Return the exit status; the container stays, so that whoever asks again gets the same answer.

        Only the verdict that the command must end (cancelled, or out of time) kills it. Whatever else goes wrong here,
        it runs on, and the next attempt joins it: migrations must neither run twice nor be cut off because a runner
        was.
        """
        try:
            return self._attempt(new, log, stop)
        except DeploymentFailed:
            remove_container(self._engine, new.name)
            raise

    def _attempt(self, new: NewContainer, log: Log, stop: Interrupt) -> int:
        stop.check()
        found = self._state(new.name)
        if found and found["Status"] in {"removing", "dead"}:
            remove_container(self._engine, new.name)
            found = None
        if found is None:
            try:
                self._maker.create(new)
            except APIError as error:
                if error.status_code != 409:
                    raise
            found = self._state(new.name) or {}
        status = found.get("Status")
        if status == "created":
            self._follow(new, log, stop, lambda: self._start(new))
        elif status != "exited":
            log.write(f"{new.what} is running already, since an earlier attempt; this is its output so far:")
            # Lines from between the two calls appear twice, which is better than not at all.
            self._follow(new, log, stop, lambda: self._replay(new, log, stop))
        else:
            log.write(f"{new.what} ended while nobody looked; this was its output:")
            self._replay(new, log, stop)
            self._check_not_cut_off(new)
        return self._exit_status(new, log, stop)

    def _start(self, new: NewContainer) -> None:
        try:
            self._engine.client.start(new.name)
        except APIError as error:
            self._maker.refuse(new, error)

    def _follow(self, new: NewContainer, log: Log, stop: Interrupt, begin: Callable[[], None]) -> None:
        """Copy what it writes to the log until it ends. `begin` is called when nothing can be missed any more.

        Attached, not by following Docker's log: a follower loses whole files where the log rotates faster than it
        reads, the end of the output included.
        """
        params = {"stdout": 1, "stderr": 1, "stream": 1}
        output = Output(self._engine, "POST", f"/containers/{new.name}/attach", params=params)
        try:
            output.await_open(stop)
            begin()
            for line in _lines(self._until_ended(new.name, output, stop)):
                log.write(line)
        finally:
            output.close()

    def _until_ended(self, name: str, output: Output, stop: Interrupt) -> Iterator[tuple[int, bytes]]:
        """Pieces of output, until Docker ends the stream, or forgot to although the command has ended."""
        heard = looked = checked = time.monotonic()
        ended = False
        for piece in output.pieces():
            now = time.monotonic()
            if piece is not None:
                heard = now
                yield piece
            if now - checked >= 0.1:
                stop.check()
                checked = now
            if piece is None and now - looked >= _LOOK_SECONDS:
                if ended and now - heard >= _GONE_QUIET_SECONDS:
                    return
                state = self._state(name)
                looked, ended = now, state is None or state["Status"] == "exited"

    def _replay(self, new: NewContainer, log: Log, stop: Interrupt) -> None:
        """Copy what Docker has kept of its output to the log."""
        params = {"stdout": 1, "stderr": 1, "follow": 0, "tail": "all"}
        output = Output(self._engine, "GET", f"/containers/{new.name}/logs", params=params)
        try:
            output.await_open(stop)
            for line in _lines(_checked(output, stop)):
                log.write(line)
        finally:
            output.close()

    def _check_not_cut_off(self, new: NewContainer) -> None:
        """A command that a restarted engine has ended tells nothing about the project."""
        state = self._state(new.name)
        if state and state["ExitCode"] in _CUT_OFF and not state["OOMKilled"]:
            raise PlatformBroke(
                f"{new.what[:1].upper()}{new.what[1:]} was cut off from outside (exit status {state['ExitCode']}).",
                code="command_cut_off",
                hint="Was the Docker engine restarted, or the command killed? What it did before stays done; "
                "deploy again.",
            )

    def _exit_status(self, new: NewContainer, log: Log, stop: Interrupt) -> int:
        while (state := self._state(new.name)) and state["Status"] != "exited":
            stop.wait(0.1)  # it closed its output but works on, or somebody paused it
        if state is None:
            raise PlatformBroke(
                f"The container of {new.what} vanished before its exit status was known.",
                code="container_gone",
                hint="Somebody or something removed it; deploy again.",
            )
        stop.check()  # whoever was overtaken must not remove what the next runner has joined
        if state["OOMKilled"]:
            log.write(f"{new.what} used more memory than it may, and was ended.")
        return int(state["ExitCode"])

    def _state(self, name: str) -> dict[str, Any] | None:
        try:
            state: dict[str, Any] = self._engine.client.inspect_container(name)["State"]
        except NotFound:
            return None
        return state


def _checked(output: Output, stop: Interrupt) -> Iterator[tuple[int, bytes]]:
    for piece in output.pieces():
        stop.check()
        if piece is not None:
            yield piece


def _lines(pieces: Iterator[tuple[int, bytes]]) -> Iterator[str]:
    """Whole lines, of stdout and stderr each for itself: half a line of one never runs into the other."""
    streams = {1: Lines(), 2: Lines()}
    for stream, data in pieces:
        yield from streams.get(stream, streams[2]).feed(data)
    for lines in streams.values():
        yield from lines.close()
