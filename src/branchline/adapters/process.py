"""Programs run as children: in groups of their own, with bounded output, and gone as soon as they should be.

How a child ends with us, whatever happens:
- each is the leader of its own session, so that one signal reaches its grandchildren too;
- whatever is left of its group when it exits, or when we stop waiting for it, is killed before we go on;
- when the runner itself is killed with -9, the kernel kills the child (PR_SET_PDEATHSIG, set by `setpriv` since Python
  has no safe way to run code between fork and exec beside other threads). The kernel takes "parent" to mean the
  *thread* that forked, hence one thread starts all children and never ends;
- grandchildren then lose their pipes and go by themselves. Where that is not certain enough, the caller hands a locked
  file to the child (`keep`): the lock is free again only when all who inherited it are gone.
"""

from __future__ import annotations

import os
import queue
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from branchline.adapters.lines import Lines
from branchline.domain.errors import PlatformBroke, TimedOut
from branchline.ports import Interrupt, Log

GRACE = 0.7
"""Seconds between SIGTERM and SIGKILL: a cancelled child is gone within a second."""

_CHUNK = 64 * 1024
_POLL = 0.1
_DRAIN = 1024 * 1024  # more than any pipe holds; a stranger who keeps writing cannot keep us reading


@dataclass(frozen=True)
class Completed:
    """How a child ended (128 + n where signal n killed it), and its last lines."""

    exit_code: int
    tail: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What a short command said: its exit status, its standard output, and its standard error as text."""

    exit_code: int
    output: bytes
    errors: str


class CommandFailed(PlatformBroke):
    """A short command ended with another status than 0."""

    code = "command_failed"

    def __init__(self, program: str, answer: Answer) -> None:
        last = answer.errors.strip().rpartition("\n")[2]
        super().__init__(f"{program} ended with status {answer.exit_code}: {last or 'it did not say why'}")
        self.answer = answer


def run(
    argv: Sequence[str],
    *,
    log: Log,
    stop: Interrupt,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    tail: int = 50,
    keep: Sequence[int] = (),
) -> Completed:
    """Run a program, no shell between; what it writes (both streams) goes to the log line by line.

    `env` replaces the environment; `keep` are file descriptors that the child inherits. Whatever `stop.check()` raises
    comes out of here, and by then the child and its group are gone: SIGTERM first, SIGKILL after 0.7 seconds. Raises
    PlatformBroke (`no_program`, `cannot_start`) where the program cannot be started.
    """
    lines, last = Lines(), deque[str](maxlen=tail)

    def show(found: Iterator[str]) -> None:
        for line in found:
            last.append(line)
            log.write(line)

    child = _Child(argv, cwd=cwd, env=env, stdin=stdin, keep=keep, merge=True)
    code = child.follow(lambda _, chunk: show(lines.feed(chunk)), stop.check)
    show(lines.close())
    return Completed(code, tuple(last))


def ask(
    argv: Sequence[str],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    limit: int = 1024 * 1024,
    keep: Sequence[int] = (),
    stop: Interrupt | None = None,
) -> Answer:
    """Run a short command and return what it said, whatever its exit status.

    Raises TimedOut after `timeout` seconds, PlatformBroke (`too_much_output`) above `limit` bytes of standard output;
    of standard error the last 64 KiB are kept. The child is gone by then, as with `run`.
    """
    end = time.monotonic() + timeout
    output, errors = bytearray(), bytearray()

    def check() -> None:
        if stop is not None:
            stop.check()
        if time.monotonic() > end:
            raise TimedOut(f"{Path(argv[0]).name} took longer than {timeout:g} seconds.")

    def take(stream: str, chunk: bytes) -> None:
        if stream == "errors":
            errors.extend(chunk)
            del errors[:-_CHUNK]
        elif len(output) + len(chunk) > limit:
            raise PlatformBroke(f"{Path(argv[0]).name} wrote more than {limit} bytes.", code="too_much_output")
        else:
            output.extend(chunk)

    child = _Child(argv, cwd=cwd, env=env, stdin=stdin, keep=keep, merge=False)
    code = child.follow(take, check)
    return Answer(code, bytes(output), errors.decode("utf-8", "replace"))


def capture(
    argv: Sequence[str],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    limit: int = 1024 * 1024,
) -> str:
    """The standard output of a short command. Raises CommandFailed unless it ended with 0, and as `ask` does."""
    answer = ask(argv, timeout=timeout, cwd=cwd, env=env, stdin=stdin, limit=limit)
    if answer.exit_code != 0:
        raise CommandFailed(Path(argv[0]).name, answer)
    return answer.output.decode("utf-8", "replace")


class _Child:
    """One child, the leader of its group, and our ends of its pipes."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None,
        env: Mapping[str, str] | None,
        stdin: bytes | None,
        keep: Sequence[int],
        merge: bool,
    ) -> None:
        program = shutil.which(argv[0], path=None if env is None else env.get("PATH"))
        if program is None:
            raise PlatformBroke(
                f"There is no program {argv[0]!r} on this machine.",
                code="no_program",
                hint=f"Install {Path(argv[0]).name}, or put it on the PATH that the platform is started with.",
            )
        self._input = memoryview(stdin or b"")

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [*_tied_to_us(), program, *argv[1:]],
                cwd=cwd,
                env=env,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merge else subprocess.PIPE,
                start_new_session=True,
                pass_fds=keep,
                umask=0o022,  # files of a checkout are the same under whatever umask the platform runs
            )

        try:
            self._process = _starter.call(start)
        except (OSError, ValueError) as error:  # no such folder, too long an argument, a NUL in one
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise PlatformBroke(f"{Path(program).name} cannot be started: {reason}.", code="cannot_start") from error

    def follow(self, take: Callable[[str, bytes], None], check: Callable[[], None]) -> int:
        """Hand on what the child writes until it ends; return its exit status. It is gone when this returns or raises.

        `check` is called every 0.1 seconds or so, however much or little there is to read.
        """
        process = self._process
        pipes = {"output": process.stdout, "errors": process.stderr, "input": process.stdin}
        ended = os.pidfd_open(process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(ended, selectors.EVENT_READ, "ended")
                for name, pipe in pipes.items():
                    if pipe is not None:
                        os.set_blocking(pipe.fileno(), False)
                        way = selectors.EVENT_WRITE if name == "input" else selectors.EVENT_READ
                        selector.register(pipe, way, name)
                self._pump(selector, take, check)
            # It is not reaped yet: until then nobody else can get its number, so this hits no stranger.
            self._signal(signal.SIGKILL)
            for name in ("output", "errors"):
                _drain(pipes[name], name, take)
        except BaseException:
            self._end(ended)
            raise
        finally:
            os.close(ended)
            for pipe in pipes.values():
                if pipe is not None:
                    with suppress(OSError):  # closing flushes: the child may not have read what we had for it
                        pipe.close()
            self._reap()
        code = process.returncode
        return code if code >= 0 else 128 - code

    def _pump(
        self, selector: selectors.BaseSelector, take: Callable[[str, bytes], None], check: Callable[[], None]
    ) -> None:
        next_check = 0.0
        while True:
            if (now := time.monotonic()) >= next_check:
                check()
                next_check = now + _POLL
            for key, _ in selector.select(_POLL):
                if key.data == "ended":
                    return
                if key.data == "input":
                    done = self._write(key.fd)
                else:
                    chunk = os.read(key.fd, _CHUNK)
                    done = not chunk
                    take(key.data, chunk)
                if done:
                    selector.unregister(key.fileobj)
                    if key.data == "input" and self._process.stdin is not None:
                        self._process.stdin.close()

    def _write(self, fd: int) -> bool:
        try:
            self._input = self._input[os.write(fd, self._input[:_CHUNK]) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:  # it does not want the rest
            return True
        return not self._input

    def _end(self, ended: int) -> None:
        """SIGTERM to the group, SIGKILL when its leader is gone or its time is over."""
        self._signal(signal.SIGTERM)
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ, pipe)
            end = time.monotonic() + GRACE
            while (left := end - time.monotonic()) > 0:
                events = selector.select(left)
                if any(key.fd == ended for key, _ in events):
                    break
                for key, _ in events:  # a full pipe must not keep it from ending
                    if not os.read(key.fd, _CHUNK):
                        selector.unregister(key.fileobj)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _reap(self) -> None:
        # Only a process stuck in the kernel outlives SIGKILL; waiting longer would not help.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)


def _drain(pipe: IO[bytes] | None, name: str, take: Callable[[str, bytes], None]) -> None:
    """Read what is left in a pipe, without waiting for more."""
    left = _DRAIN
    with suppress(BlockingIOError):
        while pipe is not None and left > 0 and (chunk := os.read(pipe.fileno(), _CHUNK)):
            left -= len(chunk)
            take(name, chunk)


@cache
def _tied_to_us() -> tuple[str, ...]:
    """What makes the kernel kill a child that outlives us; nothing on a machine without util-linux."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()


class _Starter:
    """The one thread that starts children, and lives as long as this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._owner = 0

    def call(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._owner != os.getpid():  # the first call, or the first after a fork: threads are not inherited
                self._owner = os.getpid()
                self._queue = queue.SimpleQueue()
                threading.Thread(target=self._work, args=(self._queue,), name="starter", daemon=True).start()
        future: Future[subprocess.Popen[bytes]] = Future()
        self._queue.put((start, future))
        return future.result()

    @staticmethod
    def _work(
        waiting: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]],
    ) -> None:
        while True:
            start, future = waiting.get()
            try:
                future.set_result(start())
            except BaseException as error:  # it is raised where the caller waits
                future.set_exception(error)
            del start, future  # else the last child's pipes would live on in this frame


_starter = _Starter()
