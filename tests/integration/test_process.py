"""Children: real programs, started, read, stopped and never left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from branchline.adapters.process import CommandFailed, ask, capture, run
from branchline.domain.errors import Cancelled, PlatformBroke, TimedOut
from tests.fakes.log import FakeInterrupt, FakeLog

GO_ON = FakeInterrupt()


class CountingLog(FakeLog):
    """Counts instead of keeping."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.longest = 0

    def write(self, line: str) -> None:
        self.count += 1
        self.longest = max(self.longest, len(line))


def gone(pid: int, within: float = 1.0) -> bool:
    """Whether a process ends within that time (a zombie counts as ended)."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


def wait_for(path: Path, within: float = 10.0) -> str:
    """What a child writes into a file, once it is there."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return text.strip()
        time.sleep(0.01)
    raise AssertionError(f"{path} never came")


def test_output_and_exit_status() -> None:
    log = FakeLog()
    done = run(["sh", "-c", "echo out; echo err >&2; printf end; exit 3"], log=log, stop=GO_ON)
    assert done.exit_code == 3
    assert log.lines == ["out", "err", "end"]
    assert done.tail == ("out", "err", "end")


def test_the_tail_is_bounded() -> None:
    log = FakeLog()
    assert run(["seq", "100"], log=log, stop=GO_ON, tail=2).tail == ("99", "100")
    assert len(log.lines) == 100


def test_folder_environment_and_input(tmp_path: Path) -> None:
    log = FakeLog()
    words = b"x" * 300_000 + b"\n"  # more than a pipe holds, in both directions
    run(["sh", "-c", 'pwd; echo "$WORD"; exec wc -c'], log=log, stop=GO_ON, cwd=tmp_path, stdin=words,
        env={"WORD": "bird", "PATH": os.environ["PATH"]})  # fmt: skip
    assert log.lines == [str(tmp_path), "bird", "300001"]


def test_input_that_nobody_reads() -> None:
    assert run(["true"], log=FakeLog(), stop=GO_ON, stdin=b"x" * 10_000_000).exit_code == 0


def test_arguments_reach_no_shell() -> None:
    log = FakeLog()
    run(["echo", "$(id)", "; ls", "--", "*"], log=log, stop=GO_ON)
    assert log.lines == ["$(id) ; ls -- *"]


def test_a_signal_is_told_as_shells_do() -> None:
    assert run(["sh", "-c", "kill -9 $$"], log=FakeLog(), stop=GO_ON).exit_code == 137


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(PlatformBroke) as caught:
        run(["no-such-program"], log=FakeLog(), stop=GO_ON)
    assert caught.value.code == "no_program"
    assert "no-such-program" in caught.value.sentence


@pytest.mark.parametrize("argv", [["echo", "a\0b"], ["echo", "x" * 3_000_000]])
def test_what_cannot_be_started(argv: list[str]) -> None:
    with pytest.raises(PlatformBroke) as caught:
        run(argv, log=FakeLog(), stop=GO_ON)
    assert caught.value.code == "cannot_start"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PlatformBroke) as caught:
        run(["true"], log=FakeLog(), stop=GO_ON, cwd=tmp_path / "nowhere")
    assert caught.value.code == "cannot_start"


def test_a_hundred_megabytes_of_lines() -> None:
    log = CountingLog()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = run(["sh", "-c", "yes $(printf %099d 0) | head -c 100000000"], log=log, stop=GO_ON)
    assert (done.exit_code, log.count) == (0, 1_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_a_line_of_ten_megabytes() -> None:
    log = CountingLog()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(["sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' x; echo; echo done"], log=log, stop=GO_ON)
    assert log.count == 2
    assert log.longest < 16 * 1024 + 50
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


STUBBORN = "trap '' TERM INT HUP"


@pytest.mark.parametrize("temper", ["true", STUBBORN], ids=["willing", "stubborn"])
def test_cancelling_ends_grandchildren_within_a_second(tmp_path: Path, temper: str) -> None:
    stop = FakeInterrupt()
    script = f"{temper}; (sleep 1000 & echo $! > {tmp_path}/grandchild; wait) & echo $$ > {tmp_path}/child; wait"
    began = 0.0

    def cancel() -> None:
        nonlocal began
        wait_for(tmp_path / "grandchild")
        began = time.monotonic()
        stop.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled):
        run(["sh", "-c", script], log=FakeLog(), stop=stop)
    took = time.monotonic() - began
    thread.join()
    assert took < 1.0
    assert gone(int(wait_for(tmp_path / "child")), 0.2)
    assert gone(int(wait_for(tmp_path / "grandchild")), 0.2)


def test_cancelling_a_flood() -> None:
    with pytest.raises(Cancelled):
        run(["yes"], log=CountingLog(), stop=FakeInterrupt(after=0.3))
    assert not [child for child in psutil.Process().children(recursive=True) if child.name() == "yes"]


def test_a_log_that_breaks_ends_the_child(tmp_path: Path) -> None:
    class Full(FakeLog):
        def write(self, line: str) -> None:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run(["sh", "-c", f"echo $$ > {tmp_path}/child; echo hello; sleep 1000"], log=Full(), stop=GO_ON)
    assert gone(int(wait_for(tmp_path / "child")), 0.2)


def test_nothing_stays_behind_when_a_child_ends(tmp_path: Path) -> None:
    log = FakeLog()
    began = time.monotonic()
    run(["sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/left; echo said"], log=log, stop=GO_ON)
    assert log.lines == ["said"]
    assert time.monotonic() - began < 1  # though the one left behind holds our pipe
    assert gone(int(wait_for(tmp_path / "left")), 0.2)


def test_children_die_with_a_killed_runner_but_not_with_a_thread(tmp_path: Path) -> None:
    script = """
import sys, threading, time
from branchline.adapters.process import run
from tests.fakes.log import FakeInterrupt, FakeLog
def start():
    run(["sh", "-c", f"sleep 1000 & echo $$ > {sys.argv[1]}; wait"], log=FakeLog(), stop=FakeInterrupt())
first = threading.Thread(target=lambda: threading.Thread(target=start).start())
first.start(); first.join()  # the thread that asked is gone, its child must not be
time.sleep(1000)
"""
    runner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "child")])
    try:
        child = int(wait_for(tmp_path / "child"))
        time.sleep(0.3)
        assert psutil.pid_exists(child)
        runner.send_signal(signal.SIGKILL)
        assert gone(child)
    finally:
        runner.kill()
        runner.wait()


def test_starting_works_after_a_fork() -> None:
    capture(["true"], timeout=10)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if capture(["echo", "hello"], timeout=5) == "hello\n" else 1)
    end = time.monotonic() + 10
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == 0


def test_an_answer_keeps_streams_apart() -> None:
    answer = ask(["sh", "-c", "echo out; echo err >&2; exit 2"], timeout=10)
    assert (answer.exit_code, answer.output, answer.errors) == (2, b"out\n", "err\n")


def test_capture_tells_why_a_command_failed() -> None:
    with pytest.raises(CommandFailed, match="ended with status 4: no luck") as caught:
        capture(["sh", "-c", "echo no luck >&2; exit 4"], timeout=10)
    assert caught.value.answer.exit_code == 4


def test_an_answer_has_a_time_limit() -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut):
        ask(["sleep", "1000"], timeout=0.2)
    assert time.monotonic() - began < 1.2


def test_an_answer_has_a_size_limit() -> None:
    with pytest.raises(PlatformBroke) as caught:
        ask(["yes"], timeout=10, limit=100_000)
    assert caught.value.code == "too_much_output"


def test_errors_are_bounded() -> None:
    answer = ask(["sh", "-c", "yes error | head -c 10000000 >&2; echo last >&2"], timeout=20)
    assert len(answer.errors) <= 65536
    assert answer.errors.endswith("last\n")


def test_no_descriptor_and_no_child_is_left() -> None:
    capture(["true"], timeout=10)
    us = psutil.Process()
    before, children = us.num_fds(), us.children()
    for _ in range(20):
        capture(["true"], timeout=10, stdin=b"x")
    assert us.num_fds() <= before
    assert us.children() == children


def test_a_kept_descriptor_is_inherited_and_no_other(tmp_path: Path) -> None:
    with (tmp_path / "kept").open("w") as kept, (tmp_path / "other").open("w") as other:
        os.set_inheritable(other.fileno(), True)
        shown = ask(["ls", "/proc/self/fd"], timeout=10, keep=[kept.fileno()]).output.decode().split()
        assert str(kept.fileno()) in shown
        assert str(other.fileno()) not in shown
