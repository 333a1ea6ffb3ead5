"""One operating-system process: started in a session of its own, and known again by its pid and start time."""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import signal as signals
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

SERVER_USER = "branchline"
"""Who the servers run as when we are root: PostgreSQL refuses root, and the others need none of its rights."""

OWN_SERVER_USER = "branchline-server"
"""Who our own HTTP server runs as when we are root: it is nobody's neighbour, and nothing but its own belongs to it."""


@dataclass(frozen=True)
class User:
    """An account of this machine."""

    name: str
    uid: int
    gid: int


def server_user() -> User | None:
    """The unprivileged account for servers; None where we are not root, and they run as ourselves.

    Raises KeyError where we are root and the account does not exist.
    """
    return _user(SERVER_USER)


def own_server_user() -> User | None:
    """The account of our own HTTP server; None where we are not root, and it runs as ourselves. Raises KeyError too."""
    return _user(OWN_SERVER_USER)


def _user(name: str) -> User | None:
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(name)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True)
class Command:
    """What to run, as whom (None: as ourselves), with which environment and in which folder."""

    argv: tuple[str, ...]
    folder: Path
    user: User | None = None
    umask: int = 0o077
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Identity:
    """A pid that cannot be mistaken for a later process of the same number: start time and boot belong to it."""

    pid: int
    ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The identity of the process that has this pid now; None where there is none, or only its ashes."""
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        fields = status[status.rindex(")") + 2 :].split()
        if fields[0] in {"Z", "X"}:
            return None
        return cls(pid, int(fields[19]), Path("/proc/sys/kernel/random/boot_id").read_text().strip())

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return Identity.of(self.pid) == self


class Process:
    """A running process: one that we started, or one that an earlier supervisor left behind."""

    def __init__(
        self, identity: Identity, status: Callable[[], int | None] | None = None, handle: int | None = None
    ) -> None:
        """`status` gives the exit status once it has ended, to who started it; `handle` is its pidfd."""
        self.identity = identity
        self._status = status
        self._handle = -1
        if handle is not None:
            self._handle = handle
            return
        try:
            self._handle = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return
        if status is None and not identity.alive:
            os.close(self._handle)
            self._handle = -1

    @classmethod
    def start(cls, command: Command, log: Path) -> Process:
        """Start the command in its own session, so that it outlives us; its output is added to `log`.

        Raises OSError where the program cannot be run.
        """
        account: dict[str, Any] = {}
        if command.user is not None:
            account = {"user": command.user.uid, "group": command.user.gid, "extra_groups": []}
        with opened(log) as output:
            child = subprocess.Popen(
                command.argv,
                cwd=command.folder,
                env=dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=command.umask,
                **account,
            )
        # A process that died at once is our zombie until it is waited for, hence its pid cannot be another's yet.
        return cls(Identity.of(child.pid) or Identity(child.pid, 0, ""), lambda: child.wait(timeout=5))

    @classmethod
    def find(cls, command: Command) -> Process | None:
        """A process that was started with this very command and lives, whoever forgot to write down its pid."""
        wanted = " ".join(command.argv)
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                line = (folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").replace("\0", " ")
                # A program that changes the account and then becomes the server leaves only the end of the command.
                if not line or not f" {wanted}".endswith(f" {line}"):
                    continue
                if (folder / "cwd").readlink() != command.folder.resolve():
                    continue
                pid = int(folder.name)
                if os.getsid(pid) == pid and (identity := Identity.of(pid)):
                    return cls(identity)
            except OSError:
                continue  # it ended while we looked, or it is none of ours
        return None

    @property
    def pid(self) -> int:
        """Its number."""
        return self.identity.pid

    def runs_as(self, uid: int) -> bool:
        """Whether it has no other user's rights than this one's; False once it is gone."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return False
        return next(line.split()[1:] for line in status.splitlines() if line.startswith("Uid:")) == [str(uid)] * 4

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for its end; return whether it ended."""
        if self._handle >= 0:
            if not select.select([self._handle], [], [], seconds)[0]:
                return False
            os.close(self._handle)
            self._handle = -1
        return True

    def ending(self) -> str:
        """How it ended, in words; call it after `wait` said that it did."""
        status = None
        with contextlib.suppress(OSError):  # a fork server that is gone knows nothing any more
            status = self._status() if self._status else None
        if status is None:
            return "ended"
        return f"killed by {signals.Signals(-status).name}" if status < 0 else f"exit status {status}"

    def signal(self, number: signals.Signals) -> None:
        """Send a signal to it alone; a process that is gone is fine."""
        if self._handle >= 0:
            try:
                signals.pidfd_send_signal(self._handle, number)
            except ProcessLookupError:
                return

    def kill_session(self) -> None:
        """SIGKILL what is left of it and of the children that stayed in its process group."""
        try:
            os.killpg(self.pid, signals.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.signal(signals.SIGKILL)

    def stop(self, first: signals.Signals, limit: float) -> bool:
        """Ask it to end, wait at most `limit` seconds, then SIGKILL. Returns whether it ended when it was asked."""
        self.signal(first)
        willing = self.wait(limit)
        if not willing:
            self.kill_session()
            self.wait(5.0)
        self.ending()
        return willing


def opened(log: Path) -> BinaryIO:
    """A program's log, to be added to; no link that somebody placed there is followed."""
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "ab")


def wait_until_gone(identity: Identity, seconds: float) -> bool:
    """Wait for the end of any process; return whether it is gone."""
    end = time.monotonic() + seconds
    while identity.alive:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
