"""Our own programs: the fork server, and what it forks: the HTTP server, runners for each tier, the supervisor."""

from __future__ import annotations

import fcntl
import json
import os
import signal as signals
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from branchline.domain.environment import Tier
from branchline.domain.errors import PlatformBroke
from branchline.layout import Layout
from branchline.settings import SERVER, Settings, without_settings
from branchline.settings import Program as Told
from branchline.stack import fork_server, server_account
from branchline.stack.asking import expect_ok
from branchline.stack.part import NotReady, Part, Running, plain_environment
from branchline.stack.process import Command, Process, User

FORK_SERVER = "fork-server"

SUPERVISE = "branchline.stack.supervise"
_SERVER, _RUNNER = "branchline.server.main", "branchline.runner"
_LOADED = (SUPERVISE, _RUNNER, "branchline.bootstrap.server", "branchline.server.web", _SERVER)
"""What the fork server has ready, in the order in which it is asked for."""

_REST_AFTER = "15"
"""Seconds with nothing to fork. At a start all programs are asked for within a few."""

_PYTHONS_OWN = ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD")
"""What an interpreter in an unusual place needs to find its own."""

FRESH = 10.0
"""Seconds: a runner writes its heartbeat every second; an older one is no sign of life."""


class ForkServer(Part):
    """Starts our programs, which live on without it."""

    name = FORK_SERVER
    owns_children = False
    patience = 60.0

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._socket = _fork_socket(layout)

    @property
    def endpoint(self) -> str:
        return f"unix/{self._socket}"

    def command(self) -> Command:
        # Whatever it knows, each of its forks knows: no settings, and nothing else that only one of them may have.
        python = {name: os.environ[name] for name in _PYTHONS_OWN if name in os.environ}
        words = ("branchline.stack.fork_server", str(self._socket), _REST_AFTER, *_LOADED)
        return _command(self._layout, *words, environment=plain_environment(python))

    def adoptable(self, process: Process) -> bool:
        """Not one of a version that is asked in another way."""
        found = Process.find(self.command())
        return found is not None and found.identity == process.identity

    def check(self) -> None:
        try:
            fork_server.ping(self._socket)
        except OSError as error:
            raise NotReady(f"{self._socket}: {error.strerror or error}") from None


class Program(Part):
    """A module of ours, forked off the fork server, with our environment and what concerns it of our settings."""

    stop_limit = 25.0  # what they carry is finished or left to be resumed within half of this
    patience = 60.0

    def __init__(self, layout: Layout, settings: Settings, told: Told, name: str, *arguments: str) -> None:
        self.name = name
        self._layout = layout
        self._settings = settings.variables_for(told)
        self._arguments = arguments

    def command(self) -> Command:
        ours = without_settings(os.environ)
        return _command(self._layout, *self._arguments, environment=ours | self._settings)

    def start(self, command: Command, log: Path) -> Process:
        return fork_server.fork(_fork_socket(self._layout), command, log)


def fork_supervisor(layout: Layout, log: Path) -> Process:
    """Have the supervisor forked, by a fork server that is started where none answers.

    Raises TimedOut (`part_not_ready`) where that does not start, PlatformBroke (`not_forked`) where it cannot fork.
    """
    forks = ForkServer(layout)
    with (layout.run / "fork.lock").open("w") as lock:  # two may want to start the platform in the same instant
        os.fchmod(lock.fileno(), 0o600)  # whoever can open it could hold it
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            forks.check()
        except NotReady:
            if hung := Process.find(forks.command()):
                hung.stop(signals.SIGKILL, 5.0)
            Running(forks, layout.log / f"{forks.name}.log").start()
    supervisor = _command(layout, SUPERVISE, environment=os.environ)
    try:
        return fork_server.fork(_fork_socket(layout), supervisor, log)
    except OSError as error:
        hint = f"See {layout.log / f'{forks.name}.log'}."
        raise PlatformBroke(f"The supervisor could not be started: {error}.", code="not_forked", hint=hint) from error


def _fork_socket(layout: Layout) -> Path:
    return layout.run / "forks.sock"  # fork.sock is where one answered that is asked in another way


def _command(layout: Layout, *arguments: str, environment: Mapping[str, str], user: User | None = None) -> Command:
    """Run a module by the interpreter that runs us."""
    # Not with a wish not to keep bytecode: without it a start takes three times as long.
    given = {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return Command(
        (sys.executable, "-P", "-m", *arguments),
        folder=layout.home,
        user=user,
        # Routes are made by a runner and read by the proxy's account. What the server makes, it makes for itself.
        umask=0o077 if user else 0o022,
        environment=given | {"BRANCHLINE_HOME": str(layout.home), "PYTHONUNBUFFERED": "1"},
    )


class Server(Program):
    """The HTTP server: API, dashboard, webhooks. `user` is its own account; None where it runs as ourselves."""

    needs = (FORK_SERVER, "postgres-platform")

    def __init__(self, layout: Layout, settings: Settings, user: User | None = None) -> None:
        super().__init__(layout, settings, SERVER, "server", _SERVER)
        self._user = user
        self._listen = settings.server_listen or f"127.0.0.1:{layout.ports.server}"

    @property
    def endpoint(self) -> str:
        return f"http://{self._listen}"

    @property
    def address(self) -> str:
        """Host and port at which it answers on this machine."""
        host, _, port = self._listen.rpartition(":")
        return f"{'127.0.0.1' if host in {'', '0.0.0.0', '[::]'} else host}:{port}"  # noqa: S104 only compared

    def prepare(self) -> None:
        """See to it that the account has what it needs, also where an earlier server was root."""
        server_account.furnish(self._layout, self._user)

    def command(self) -> Command:
        if self._user is None:
            return super().command()
        environment = server_account.environment(self._layout, self._user) | self._settings
        return _command(self._layout, *self._arguments, environment=environment, user=self._user)

    def adoptable(self, process: Process) -> bool:
        """Not one that runs as somebody else, such as root before it had an account of its own."""
        return process.runs_as(self._user.uid if self._user else os.geteuid())

    def check(self) -> None:
        expect_ok(self.address, "/healthz")

    def settle(self) -> None:
        """Put the first admin's token where its operator finds it."""
        server_account.fetch_first_token(self._layout)


class Runner(Program):
    """A runner of a tier; the first one has no number in its name."""

    def __init__(self, layout: Layout, settings: Settings, tier: Tier, number: int = 1) -> None:
        name = f"runner-{tier}" + (f"-{number}" if number > 1 else "")
        super().__init__(layout, settings, Told(tier), name, _RUNNER, "--tier", tier, "--name", name)
        self.needs = (FORK_SERVER, "postgres-platform", f"postgres-{tier}", "openbao", "registry", "caddy")
        self._heartbeat = layout.run / f"{name}.json"

    @property
    def endpoint(self) -> str:
        return f"heartbeat {self._heartbeat.name}"

    def prepare(self) -> None:
        self._heartbeat.unlink(missing_ok=True)

    def check(self) -> None:
        try:
            age = time.time() - float(json.loads(self._heartbeat.read_text())["at"])
        except FileNotFoundError:
            raise NotReady("it has not shown a sign of life yet") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise NotReady("its sign of life cannot be read") from None
        if abs(age) > FRESH:
            raise NotReady(f"its last sign of life is {age:.0f} s old")
