"""The fork server: has loaded what our programs need, and forks them. They share that memory, and start at once.

Usage: python -m branchline.stack.fork_server SOCKET REST_AFTER MODULE...

Forked programs live on in sessions of their own, whether it or the supervisor is killed. They inherit nothing that is
secret: the fork server reads no file of the home, and what a program is told at its start (its environment may hold
passwords) is read by its own fork, which becomes the account that the program runs as before anything of it runs.
After REST_AFTER seconds with nothing to fork it executes itself anew and loads nothing until it is asked again: what
its forks share stays theirs, what only it still has is given back.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from setproctitle import getproctitle, setproctitle

from branchline import memory
from branchline.stack.privileges import give_up
from branchline.stack.process import Command, Identity, Process, User, opened

_MESSAGE = 200_000
_PATIENCE = 30.0
"""Seconds that an answer may take: on a busy machine it takes some to load everything."""

_HEAD_START = 2.0
"""Seconds: by then the supervisor has been forked, if it is forked at all."""

_LISTENER = "BRANCHLINE_FORK_LISTENER"
"""The descriptor that the fork server left to itself."""

_ENDINGS_KEPT = 100
_WAITING = 128


@dataclass(frozen=True)
class _Wanted:
    """A Command, as it goes over the socket."""

    argv: Sequence[str]
    folder: str
    umask: int
    environment: dict[str, str] = field(repr=False)
    user: dict[str, Any] | None = None

    @property
    def arguments(self) -> Sequence[str]:
        return self.argv[self.argv.index("-m") + 2 :]


def fork(server: Path, command: Command, log: Path) -> Process:
    """Have a command `python … -m MODULE …` run by a fork; what it prints is added to `log`.

    Raises OSError where the fork server does not answer or cannot do it.
    """
    user = asdict(command.user) if command.user else None
    wanted = _Wanted(command.argv, str(command.folder), command.umask, dict(command.environment), user)
    module = command.argv[command.argv.index("-m") + 1]
    with opened(log) as output:
        answer, handles = _ask(server, {"run": module}, [output.fileno()], for_fork=vars(wanted))
    if "error" in answer:
        raise OSError(answer["error"])
    identity = Identity(**answer["identity"])
    return Process(identity, lambda: _ask(server, {"ending": identity.pid})[0]["status"], handles[0])


def ping(server: Path) -> None:
    """Raise OSError unless the fork server answers within two seconds."""
    _ask(server, {"ending": 0}, patience=2.0)


def _ask(
    server: Path,
    request: dict[str, Any],
    handles: Sequence[int] = (),
    patience: float = _PATIENCE,
    for_fork: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], list[int]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(patience)
        connection.connect(str(server))
        socket.send_fds(connection, [json.dumps(request).encode()], handles)
        if for_fork is not None:
            connection.send(json.dumps(for_fork).encode())
        message, given, _, _ = socket.recv_fds(connection, _MESSAGE, 1)
    if not message:
        raise ConnectionResetError("the fork server gave no answer")
    return json.loads(message), given


class ForkServer:
    """Answers one request after the other, in one thread: a fork must not find another thread's lock taken."""

    def __init__(self, listener: socket.socket, rest_after: float, modules: Sequence[str], *, resting: bool) -> None:
        """`resting`: nothing is loaded before the first request.

        Else the first module is loaded at once, and the others once that has been asked for, or in a moment: whoever is
        forked first shares all that it needs, and has nothing else.
        """
        self._listener = listener
        self._rest_after = rest_after
        self._to_load = list(modules)
        self._loads_from = float("inf") if resting else time.monotonic() + _HEAD_START
        self._forked = time.monotonic()
        self._endings: dict[int, int] = {}
        if not resting:
            self._load_next()

    def serve(self) -> None:
        """Until SIGTERM."""
        while True:
            now = time.monotonic()
            if not self._to_load and now - self._forked > self._rest_after:
                self._rest()
            until_load = max(0.0, self._loads_from - now) if self._to_load else self._rest_after
            self._listener.settimeout(min(self._rest_after, until_load))
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, TimeoutError):
                self._reap()  # those that a dead supervisor never asked for
                if self._to_load and time.monotonic() >= self._loads_from:
                    self._load_next()
                continue
            with connection:
                connection.settimeout(_PATIENCE)
                try:
                    self._answer(connection)
                except (OSError, ValueError, TypeError, LookupError):  # nonsense, or whoever asked is gone
                    traceback.print_exc()

    def _answer(self, connection: socket.socket) -> None:
        message, handles, _, _ = socket.recv_fds(connection, _MESSAGE, 1)
        with ExitStack() as held:
            for handle in handles:
                held.callback(os.close, handle)
            request = json.loads(message)
            if "ending" in request:
                self._reap()
                connection.send(json.dumps({"status": self._endings.get(request["ending"])}).encode())
                return
            try:
                pid = self._fork(str(request["run"]), handles[0], connection)
            except OSError as error:
                connection.send(json.dumps({"error": str(error)}).encode())
                return
            # Nobody else waits for it: as long as we do not either, its number cannot be another's.
            handle = os.pidfd_open(pid)
            held.callback(os.close, handle)
            identity = Identity.of(pid) or Identity(pid, 0, "")
            socket.send_fds(connection, [json.dumps({"identity": asdict(identity)}).encode()], [handle])

    def _fork(self, module: str, log: int, connection: socket.socket) -> int:
        """The pid of the fork, once it is known by its command; raises OSError where it cannot become that."""
        self._loads_from = 0.0
        while self._to_load and module not in sys.modules:
            self._load_next()
        self._forked = time.monotonic()
        gc.freeze()  # a collection would write into every object, and so make a copy of every page
        if _has_left(connection):  # and has asked again, or will
            raise ConnectionAbortedError("whoever asked is gone")
        said, saying = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(said)
            os.close(saying)
            raise
        if pid == 0:
            self._listener.close()
            os.close(said)
            _become(module, connection, log, saying)
        os.close(saying)
        with os.fdopen(said) as words:
            if why := words.read():
                raise OSError(why)
        return pid

    def _load_next(self) -> None:
        importlib.import_module(self._to_load.pop(0))
        if not self._to_load:
            memory.settle()

    def _rest(self) -> None:
        """Become a process of the same number, parent and children that has nothing loaded."""
        os.set_inheritable(self._listener.fileno(), True)
        environment = os.environ | {_LISTENER: str(self._listener.fileno())}
        os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606 the very command that runs

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._endings[pid] = os.waitstatus_to_exitcode(status)
            while len(self._endings) > _ENDINGS_KEPT:
                self._endings.pop(next(iter(self._endings)))


def _has_left(connection: socket.socket) -> bool:
    watch = select.poll()
    watch.register(connection, select.POLLHUP)
    return bool(watch.poll(0))


def _become(module: str, connection: socket.socket, log: int, saying: int) -> NoReturn:
    """Turn this fork into the program; what is in the way of that goes to `saying`, which is closed in any case."""
    status = 1
    try:
        try:
            with connection:
                wanted = _Wanted(**json.loads(connection.recv(_MESSAGE)))
            os.setsid()
            os.chdir(wanted.folder)
            os.umask(wanted.umask)
            nowhere = os.open(os.devnull, os.O_RDONLY)
            for target, source in ((0, nowhere), (1, log), (2, log)):
                os.dup2(source, target)
            os.close(nowhere)
            os.close(log)
            if wanted.user is not None:
                give_up(User(**wanted.user))
            os.environ.clear()
            os.environ.update(wanted.environment)
            sys.argv = [module, *wanted.arguments]
            setproctitle(" ".join(wanted.argv))
            program = importlib.import_module(module)
            gc.enable()
        except Exception as error:
            os.write(saying, str(error).encode())
            raise
        finally:
            os.close(saying)
        status = program.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):  # a full disk
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)  # no handler of the fork server's may run here; what a program leaves undone is to be resumed


def main() -> None:
    """Serve, by the socket that an earlier life left where there is one."""
    gc.disable()  # until the forks run
    # Where structlog and httpx find rich, they load it for colours that nobody sees here: 7 MB.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    memory.few_heaps()
    getproctitle()  # finds where the command lies, as long as the environment lies behind it
    path, rest_after, *modules = sys.argv[1:]
    inherited = os.environ.pop(_LISTENER, None)
    if inherited is not None:
        listener = socket.socket(fileno=int(inherited))
        listener.set_inheritable(False)
    else:
        Path(path).unlink(missing_ok=True)
        os.umask(0o077)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(path)
        listener.listen(_WAITING)
    ForkServer(listener, float(rest_after), modules, resting=inherited is not None).serve()


if __name__ == "__main__":
    main()
