"""The fork server: what it forks is a process like any other, and outlives it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from branchline.stack import fork_server
from branchline.stack.process import Command, Process

PROGRAM = """
import json, os, sys, time

def main():
    word, *rest = sys.argv[1:]
    if word == "tell":
        about = {"argv": sys.argv, "cwd": os.getcwd(), "mask": os.umask(0), "session": os.getsid(0), "pid": os.getpid(),
                 "environment": dict(os.environ), "parent": os.getppid(), "loaded": LOADED_BY}
        print(json.dumps(about))
    elif word == "end":
        return int(rest[0])
    elif word == "break":
        raise RuntimeError("broken on purpose")
    else:
        time.sleep(600)
    return 0

LOADED_BY = os.getpid()
"""


class World:
    """A fork server that has loaded one small program."""

    def __init__(self, folder: Path, rest_after: float = 60) -> None:
        self.folder = folder
        self.socket = folder / "fork.sock"
        (folder / "small_program.py").write_text(PROGRAM)
        self.log = folder / "program.log"
        self._forked: list[Process] = []
        words = ("branchline.stack.fork_server", str(self.socket), str(rest_after), "small_program")
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        self.command = Command((sys.executable, "-P", "-m", *words), folder, environment=environment)
        self.server = self.start()

    def start(self) -> Process:
        self.server = Process.start(self.command, self.folder / "server.log")
        wait(self.answers)
        return self.server

    def answers(self) -> bool:
        try:
            fork_server.ping(self.socket)
        except OSError:
            return False
        return True

    def program(self, *words: str, **environment: str) -> Command:
        argv = (sys.executable, "-P", "-m", "small_program", *words)
        return Command(argv, self.folder, umask=0o027, environment={"PATH": os.defpath, **environment})

    def fork(self, *words: str, **environment: str) -> Process:
        forked = fork_server.fork(self.socket, self.program(*words, **environment), self.log)
        self._forked.append(forked)
        return forked

    def end(self) -> None:
        for process in [*self._forked, self.server]:
            process.stop(signal.SIGKILL, 5)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.end()


def wait(until: Callable[[], object], within: float = 20) -> None:
    end = time.monotonic() + within
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_fork_is_a_process_like_any_other(world: World) -> None:
    process = world.fork("tell", "every thing", COLOUR="blue")
    assert process.wait(10)
    assert process.ending() == "exit status 0"
    about = json.loads(world.log.read_text())
    assert about["argv"] == ["small_program", "tell", "every thing"]
    assert about["environment"] == {"PATH": os.defpath, "COLOUR": "blue"}
    assert (about["cwd"], about["mask"]) == (str(world.folder), 0o027)
    assert about["session"] == about["pid"] == process.pid
    assert about["loaded"] == about["parent"] == world.server.pid, "it was not loaded again"
    assert world.log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("status", [0, 4, 75])
def test_its_exit_status_is_known(world: World, status: int) -> None:
    process = world.fork("end", str(status))
    assert process.wait(10)
    assert process.ending() == f"exit status {status}"


def test_what_kills_it_is_known(world: World) -> None:
    process = world.fork("sleep")
    process.signal(signal.SIGKILL)
    assert process.wait(10)
    assert process.ending() == "killed by SIGKILL"
    assert not psutil.pid_exists(process.pid), "nobody waited for it"


def test_what_it_cannot_become_is_said(world: World) -> None:
    for command in (
        replace(world.program("tell"), folder=world.folder / "nowhere"),
        Command(("x", "-m", "y"), world.folder),
    ):
        with pytest.raises(OSError, match=r"No such file|No module named 'y'"):
            fork_server.fork(world.socket, command, world.log)
    assert world.fork("tell").wait(10)


def test_its_last_words_are_in_its_log(world: World) -> None:
    process = world.fork("break")
    assert process.wait(10)
    assert process.ending() == "exit status 1"
    assert world.log.read_text().splitlines()[-1] == "RuntimeError: broken on purpose"


def test_it_is_found_by_its_command(world: World) -> None:
    process = world.fork("sleep", "well")
    found = Process.find(world.program("sleep", "well"))
    assert found is not None
    assert found.identity == process.identity
    assert Process.find(world.program("sleep", "badly")) is None
    assert Process.find(world.program("sleep")) is None


def test_it_outlives_its_fork_server(world: World) -> None:
    process = world.fork("sleep")
    world.server.stop(signal.SIGKILL, 5)
    with pytest.raises(OSError, match="refused"):
        world.fork("tell")
    assert process.identity.alive
    world.start()
    process.signal(signal.SIGTERM)
    assert process.wait(10)
    assert process.ending() == "ended", "the new fork server knows nothing of it"
    assert world.fork("tell").wait(10)


def test_it_holds_nothing_of_its_fork_server(world: World) -> None:
    process = world.fork("sleep")
    held = {Path(f"/proc/{process.pid}/fd/{one}").readlink() for one in (0, 1, 2)}
    assert held == {Path(os.devnull), world.log}
    assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) == 3


def test_at_rest_it_has_nothing_loaded_and_loads_when_it_is_asked(tmp_path: Path) -> None:
    world = World(tmp_path, rest_after=0.5)
    try:
        first = world.fork("sleep")
        mapped = f"/proc/{world.server.pid}/environ"
        wait(lambda: b"BRANCHLINE_FORK_LISTENER" in Path(mapped).read_bytes())
        assert world.answers()
        assert world.server.identity.alive, "it is the same process"
        assert Process.find(world.command) is not None
        first.signal(signal.SIGKILL)
        assert first.wait(10)
        assert first.ending() == "killed by SIGKILL", "it is still the parent of what it forked before"
        again = world.fork("tell")
        assert again.wait(10)
        about = json.loads(world.log.read_text())
        assert about["loaded"] == about["parent"] == world.server.pid
    finally:
        world.end()


def test_nonsense_does_not_end_it(world: World) -> None:
    for nonsense in (b"{", b"{}", b"[]", b'{"run": {}}'):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(world.socket))
            connection.send(nonsense)
            connection.settimeout(10)
            with suppress(ConnectionResetError):
                assert connection.recv(1000) == b""
    assert world.answers()
    assert world.fork("end", "3").wait(10)


def test_only_its_owner_may_ask(world: World) -> None:
    assert world.socket.stat().st_mode & 0o077 == 0
