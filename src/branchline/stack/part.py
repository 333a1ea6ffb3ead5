"""What a part of the stack is: prepared, started, asked whether it does its work, and stopped."""

from __future__ import annotations

import os
import signal as signals
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Self

from branchline.domain.errors import TimedOut
from branchline.domain.printable import printable
from branchline.stack.process import Command, Process


class NotReady(Exception):
    """The part does not do its work now; the message says why, in a few words."""


class Part(ABC):
    """One server, or one thing that servers need. All methods may be repeated and survive a kill at any line.

    `needs` names the parts that must be ready before this one starts; it is stopped before them. `patience` is how many
    seconds it may live without doing its work before it is started anew; None: it is left to itself. `has_process` says
    whether it must have one of ours to be up, `owns_children` whether what that process started is part of it.
    """

    name: str
    needs: tuple[str, ...] = ()
    external = False
    has_process = True
    owns_children = True
    stop_signal = signals.SIGTERM
    stop_limit = 10.0
    start_limit = 60.0
    patience: float | None = None

    @property
    @abstractmethod
    def endpoint(self) -> str:
        """Where it is reached, for people."""

    def prepare(self) -> None:  # noqa: B027 not every part has something to do here
        """Write what it needs before it can start: folders, configuration, binaries."""

    @abstractmethod
    def command(self) -> Command | None:
        """How it is started, after `prepare`; None where there is no process of ours to run.

        Raises PlatformBroke where this machine lacks what it needs.
        """

    def start(self, command: Command, log: Path) -> Process:
        """Run its command, in a session of its own; what it prints is added to `log`. Raises OSError."""
        return Process.start(command, log)

    def adoptable(self, process: Process) -> bool:  # noqa: ARG002
        """Whether a process that an earlier supervisor started may live on; else it is stopped, and started anew."""
        return True

    @abstractmethod
    def check(self) -> None:
        """Raise NotReady unless it does its work right now. Takes at most two seconds."""

    def settle(self) -> None:  # noqa: B027
        """Give the server what only a running server takes, such as roles. Raises NotReady to be asked again."""

    def tend(self, signal: Callable[[signals.Signals], None]) -> None:  # noqa: B027
        """Keep in order what it writes; called every few seconds while it runs, with a way to signal it."""

    def occupied(self) -> str:
        """Why it must be left running when the platform stops, in a few words; empty where it may be stopped."""
        return ""


class External(Part):
    """A server that somebody else runs: only looked at, never started or stopped."""

    external = True

    def __init__(self, name: str, address: tuple[str, int] | Path) -> None:
        self.name = name
        self._address = address

    @property
    def endpoint(self) -> str:
        if isinstance(self._address, Path):
            return f"unix/{self._address}"
        return f"{self._address[0]}:{self._address[1]}"

    def command(self) -> None:
        return None

    def check(self) -> None:
        if isinstance(self._address, Path):
            check_socket(self._address)
        else:
            check_port(*self._address)


class Running:
    """A part with its process, outside of any supervisor: for tests and for single use."""

    def __init__(self, part: Part, log: Path) -> None:
        self.part = part
        self._log = log
        self.process: Process | None = None

    def start(self) -> Self:
        """Prepare, start and wait until it is ready; raises TimedOut (`part_not_ready`) with its last words."""
        self.part.prepare()
        command = self.part.command()
        self.process = self.part.start(command, self._log) if command else None
        await_ready(self.part, self.process, self._log)
        return self

    def kill(self) -> None:
        """SIGKILL it and wait for its end."""
        if self.process:
            self.process.signal(signals.SIGKILL)
            self.process.stop(signals.SIGKILL, 10)

    def stop(self) -> None:
        """Stop it as the supervisor would."""
        if self.process:
            self.process.stop(self.part.stop_signal, self.part.stop_limit)


@contextmanager
def running(part: Part, logs: Path) -> Iterator[Running]:
    """The part, ready; stopped at the end."""
    alone = Running(part, logs / f"{part.name}.log")
    try:
        yield alone.start()
    finally:
        alone.stop()


def await_ready(part: Part, process: Process | None, log: Path, ending: Event | None = None) -> bool:
    """Wait until the part is ready and settled; False when `ending` was set meanwhile.

    Raises TimedOut (`part_not_ready`) when its process ends, or when it takes longer than its `start_limit`.
    """
    end = time.monotonic() + part.start_limit
    ending = ending or Event()
    pause = 0.02
    while not ending.wait(pause):
        pause = min(pause * 1.3, 0.15)  # asking costs the starting servers the time that they need
        try:
            part.check()
            part.settle()
        except NotReady as answer:
            reason = str(answer)
        else:
            reason = ""
        if process and process.wait(0):  # also where something answered: it was somebody else then
            raise TimedOut(
                f"{part.name} ended while it was starting: {process.ending()}.",
                code="part_not_ready",
                hint=last_line(log),
            )
        if not reason:
            return True
        if time.monotonic() > end:
            raise TimedOut(
                f"{part.name} was not ready in {part.start_limit:.0f} s: {reason}.",
                code="part_not_ready",
                hint=last_line(log),
            )
    return False


def check_socket(path: Path) -> None:
    """Raise NotReady unless something accepts connections at this Unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
        except OSError as error:
            raise NotReady(f"{path}: {error.strerror or error}") from None


def check_port(host: str, port: int, limit: float = 2.0) -> None:
    """Raise NotReady unless something accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=limit).close()
    except OSError as error:
        raise NotReady(f"nothing answers at {host}:{port} ({error.strerror or error})") from None


def last_line(log: Path) -> str:
    """The last line that says something; empty where there is none."""
    return next(reversed(last_lines(log, 1)), "")[:200]


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log as a terminal may show them, blank ones left out."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [printable(line).rstrip() for line in text.splitlines() if line.strip()][-count:]


GO_LEAN = {"GOGC": "50"}
"""For servers in Go: collect garbage when the heap has grown by half, not when it has doubled. They are small."""


def plain_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a server gets to see of our environment: how to reach the world, and none of our settings or secrets."""
    passed = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
    kept = {name: os.environ[name] for name in (*passed, *proxies) if name in os.environ}
    return {"PATH": os.defpath, "LANG": "C.UTF-8"} | kept | dict(extra or {})
