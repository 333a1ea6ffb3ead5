"""The supervisor with parts that are plain programs, and the pure rules around it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from branchline.domain.errors import BadInput, Conflict, PlatformBroke
from branchline.layout import Layout, Ports
from branchline.settings import Settings
from branchline.stack import first_start, plan, ports
from branchline.stack.keeper import FIRST_PAUSE, HEALTHY_AFTER, LONGEST_PAUSE, Backoff
from branchline.stack.ledger import Entry, Ledger, State
from branchline.stack.logs import rotate
from branchline.stack.openbao import OpenBao
from branchline.stack.part import External, NotReady, Part
from branchline.stack.process import Command, Identity, Process
from branchline.stack.supervisor import Supervisor, hold, in_order

SLEEPER = "import time; print('here', flush=True); time.sleep(600)"


class Program(Part):
    """A Python program that is ready once it has made a file, its mark."""

    def __init__(
        self, layout: Layout, name: str, code: str = SLEEPER, needs: tuple[str, ...] = (), *, marks: bool = True
    ) -> None:
        self.name = name
        self.needs = needs
        self.where = "nowhere"
        self.stop_limit = 1.0
        self.start_limit = 5.0
        self._code = code
        self._marks = marks
        self._layout = layout
        self._mark = layout.home / f"{name}.ready"

    @property
    def endpoint(self) -> str:
        return self.where

    def prepare(self) -> None:
        self._mark.unlink(missing_ok=True)

    def command(self) -> Command:
        code = f"open({str(self._mark)!r}, 'w').close(); {self._code}" if self._marks else self._code
        return Command((sys.executable, "-S", "-c", code), folder=self._layout.home)

    def check(self) -> None:
        if not self._mark.exists():
            raise NotReady("it has made no mark")


class Told:
    """What the supervisor said."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, part: str, text: str) -> None:
        self.lines.append((part, text))

    def by(self, part: str) -> list[str]:
        return [text for name, text in self.lines if name == part]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path, "bltest", IPv4Network("10.201.0.0/16"), Ports(*range(20_000, 20_008)))
    for folder in ("run/parts", "log", "keys"):
        (tmp_path / folder).mkdir(parents=True)
    return made


@pytest.fixture
def supervise(layout: Layout) -> Iterator[Callable[..., tuple[Supervisor, threading.Thread, Told]]]:
    running: list[tuple[Supervisor, threading.Thread]] = []

    def begin(*parts: Part) -> tuple[Supervisor, threading.Thread, Told]:
        told = Told()
        supervisor = Supervisor(layout, parts, told)
        thread = threading.Thread(target=supervisor.run)
        thread.start()
        running.append((supervisor, thread))
        return supervisor, thread, told

    yield begin
    for supervisor, thread in running:
        supervisor.end()
        thread.join(20)
        assert not thread.is_alive()
    assert not [entry for entry in Ledger(layout.run).entries() if entry.alive]


def eventually(true: Callable[[], object], limit: float = 10.0) -> None:
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def pid_of(layout: Layout, part: str) -> int:
    entry = Ledger(layout.run).read(part)
    assert entry is not None
    assert entry.identity is not None
    return entry.identity.pid


def is_up(layout: Layout, part: str) -> bool:
    entry = Ledger(layout.run).read(part)
    return entry is not None and entry.state is State.UP and entry.alive


def up_as(layout: Layout, part: str) -> int | None:
    """The number of its process where it is up, by one look: from one to the next it may have died."""
    entry = Ledger(layout.run).read(part)
    there = entry is not None and entry.state is State.UP and entry.alive and entry.identity is not None
    return entry.identity.pid if there else None


# --- the supervisor --------------------------------------------------------------------------------------------------


def test_a_part_starts_after_what_it_needs_and_stops_before_it(layout: Layout, supervise) -> None:
    supervisor, thread, told = supervise(
        Program(layout, "roof", needs=("wall",)), Program(layout, "wall", needs=("ground",)), Program(layout, "ground")
    )
    eventually(lambda: told.by("supervisor"))
    assert [part for part, text in told.lines if text.startswith("up")] == ["ground", "wall", "roof"]
    assert told.by("supervisor")[0].startswith("all 3 parts are up")
    pids = [pid_of(layout, part) for part in ("roof", "wall", "ground")]
    supervisor.end()
    thread.join(10)
    assert [Identity.of(pid) for pid in pids] == [None, None, None]
    assert Ledger(layout.run).entries() == []


def test_what_dies_comes_back_and_the_log_says_why(layout: Layout, supervise) -> None:
    _, _, told = supervise(Program(layout, "server"))
    eventually(lambda: is_up(layout, "server"))
    first = pid_of(layout, "server")
    eventually(lambda: "here" in (layout.log / "server.log").read_text())
    Process(Identity.of(first)).signal(signal.SIGKILL)
    eventually(lambda: up_as(layout, "server") not in {None, first})
    down = next(text for text in told.by("server") if "down" in text)
    assert "killed by SIGKILL" in down
    assert "last words: here" in down
    assert "0.2 s" in down
    entry = Ledger(layout.run).read("server")
    assert entry is not None
    assert entry.restarts == 1


def test_what_never_starts_is_tried_ever_more_slowly_and_holds_nobody_else_up(layout: Layout, supervise) -> None:
    _, _, told = supervise(
        Program(layout, "broken", code="raise SystemExit('no disk')", marks=False),
        Program(layout, "needy", needs=("broken",)),
        Program(layout, "other"),
    )
    eventually(lambda: is_up(layout, "other"))
    eventually(lambda: sum("down" in text for text in told.by("broken")) >= 2)
    pauses = [text.rpartition("Next try in ")[2] for text in told.by("broken") if "down" in text]
    assert pauses[:2] == ["0.2 s.", "0.4 s."]
    assert any("exit status 1" in text and "no disk" in text for text in told.by("broken"))
    waiting = Ledger(layout.run).read("needy")
    assert waiting is not None
    assert waiting.state is State.WAITING


def test_a_part_that_ignores_the_request_to_stop_is_killed(layout: Layout, supervise) -> None:
    code = f"import signal; signal.signal(15, signal.SIG_IGN); {SLEEPER}"
    supervisor, thread, told = supervise(Program(layout, "deaf", code=code))
    eventually(lambda: is_up(layout, "deaf"))
    eventually(lambda: "here" in (layout.log / "deaf.log").read_text())
    pid = pid_of(layout, "deaf")
    supervisor.end()
    thread.join(10)
    assert Identity.of(pid) is None
    assert any("was killed" in text for text in told.by("deaf"))


def test_children_of_a_dead_part_do_not_live_on_beside_its_next_life(layout: Layout, supervise) -> None:
    child = layout.home / "child"
    code = (
        "import subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)']); "
        f"open({str(child)!r}, 'w').write(str(child.pid)); {SLEEPER}"
    )
    supervise(Program(layout, "parent", code=code))
    eventually(lambda: child.exists() and child.read_text())
    eventually(lambda: is_up(layout, "parent"))
    pid = int(child.read_text())
    Process(Identity.of(pid_of(layout, "parent"))).signal(signal.SIGKILL)
    eventually(lambda: Identity.of(pid) is None)


def test_a_living_part_that_does_no_work_is_started_anew(layout: Layout, supervise) -> None:
    part = Program(layout, "stuck")
    part.patience = 0.5
    supervise(part)
    eventually(lambda: is_up(layout, "stuck"))
    first = pid_of(layout, "stuck")
    part.prepare()  # takes its mark away
    eventually(lambda: up_as(layout, "stuck") not in {None, first})


def test_a_second_supervisor_is_told_who_runs(layout: Layout, supervise) -> None:
    supervise(Program(layout, "server"))
    eventually(lambda: is_up(layout, "server"))
    with pytest.raises(Conflict, match="already running") as refused:
        Supervisor(layout, [], Told()).run()
    assert refused.value.code == "already_running"
    assert refused.value.exit_status == 2


def test_what_a_dead_supervisor_left_is_taken_over(layout: Layout, supervise) -> None:
    part = Program(layout, "server")
    part.prepare()
    left = Process.start(part.command(), layout.log / "server.log")
    Ledger(layout.run).write(Entry("server", State.UP, identity=left.identity))
    _, _, told = supervise(part)
    eventually(lambda: told.by("server"))
    assert pid_of(layout, "server") == left.pid
    assert told.by("server")[0].startswith("still runs")
    left.signal(signal.SIGKILL)
    assert left.wait(5)
    left.ending()
    eventually(lambda: up_as(layout, "server") not in {None, left.pid})


def test_what_was_started_but_never_written_down_is_found(layout: Layout, supervise) -> None:
    part = Program(layout, "server")
    left = Process.start(part.command(), layout.log / "server.log")
    _, _, told = supervise(part)
    eventually(lambda: told.by("server"))
    assert pid_of(layout, "server") == left.pid
    left.stop(signal.SIGKILL, 5)


@pytest.mark.parametrize("written_down", [True, False])
def test_what_may_not_be_taken_over_is_stopped_first(layout: Layout, supervise, *, written_down: bool) -> None:
    part = Program(layout, "server")
    left = Process.start(part.command(), layout.log / "server.log")
    if written_down:
        Ledger(layout.run).write(Entry("server", State.UP, identity=left.identity))
    part.adoptable = lambda process: process.identity != left.identity
    supervise(part)
    assert left.wait(10)
    left.ending()
    eventually(lambda: up_as(layout, "server") not in {None, left.pid})


def test_a_pid_of_before_the_reboot_is_nobody(layout: Layout, supervise) -> None:
    stranger = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
    now = Identity.of(stranger.pid)
    assert now is not None
    Ledger(layout.run).write(Entry("server", State.UP, identity=Identity(now.pid, now.ticks, "another-boot")))
    supervise(Program(layout, "server"))
    eventually(lambda: is_up(layout, "server"))
    assert pid_of(layout, "server") != stranger.pid
    assert now.alive
    stranger.kill()
    stranger.wait()


def test_what_a_setting_made_external_is_stopped_first(layout: Layout, supervise) -> None:
    part = Program(layout, "server")
    part.prepare()
    left = Process.start(part.command(), layout.log / "server.log")
    Ledger(layout.run).write(Entry("server", State.UP, identity=left.identity))
    eventually((layout.home / "server.ready").exists)
    part.external = True
    part.prepare = part.command = lambda: None
    supervise(part)
    assert left.wait(10)
    left.ending()
    eventually(lambda: Ledger(layout.run).read("server").state is State.EXTERNAL)


def test_a_disk_that_takes_nothing_more_does_not_end_the_watch(layout: Layout, supervise) -> None:
    _, _, told = supervise(Program(layout, "server"))
    eventually(lambda: is_up(layout, "server"))
    first = pid_of(layout, "server")
    (layout.run / "parts").rename(layout.run / "gone")
    Process(Identity.of(first)).signal(signal.SIGKILL)
    eventually(lambda: sum(text.startswith("up") for text in told.by("server")) == 2)
    (layout.run / "gone").rename(layout.run / "parts")


def test_clear_stops_what_is_left_and_starts_nothing(layout: Layout) -> None:
    part = Program(layout, "server")
    part.prepare()
    left = Process.start(part.command(), layout.log / "server.log")
    Ledger(layout.run).write(Entry("server", State.UP, identity=left.identity))
    Supervisor(layout, [part, Program(layout, "other")], Told()).clear()
    assert left.wait(5)
    left.ending()
    assert Ledger(layout.run).entries() == []
    assert not (layout.home / "other.ready").exists()


def test_the_lock_goes_with_the_process(layout: Layout) -> None:
    with hold(layout), pytest.raises(Conflict), hold(layout):
        pass
    with hold(layout):
        pass


# --- order, pauses, entries ------------------------------------------------------------------------------------------


def test_parts_in_a_circle_are_refused(layout: Layout) -> None:
    with pytest.raises(PlatformBroke, match="hen, egg"):
        in_order([Program(layout, "hen", needs=("egg",)), Program(layout, "egg", needs=("hen",))])


def test_needs_that_are_not_among_the_parts_do_not_count(layout: Layout) -> None:
    assert [part.name for part in in_order([Program(layout, "server", needs=("elsewhere",))])] == ["server"]


def test_pauses_double_and_begin_anew_after_good_health() -> None:
    backoff = Backoff()
    pauses = [backoff.after(0.0) for _ in range(10)]
    assert pauses[:3] == [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]
    assert pauses[-1] == LONGEST_PAUSE
    assert backoff.after(HEALTHY_AFTER - 1) == LONGEST_PAUSE
    assert backoff.after(HEALTHY_AFTER) == FIRST_PAUSE


def test_a_torn_entry_counts_as_none(layout: Layout) -> None:
    ledger = Ledger(layout.run)
    ledger.write(Entry("server", State.UP, order=3))
    assert ledger.read("server") == ledger.entries()[0]
    (layout.run / "parts" / "server.json").write_text('{"part": "ser')
    assert ledger.read("server") is None
    assert ledger.entries() == []


def test_a_server_with_a_url_is_external(layout: Layout) -> None:
    settings = Settings(
        home=layout.home,
        database_url="postgresql://platform:secret@db.example.com:6432/platform",
        vault_url="https://vault.example.com",
        registry="registry.example.com/team",
        caddy_admin="unix//run/caddy.sock",
    )
    parts = {part.name: part for part in plan.servers(settings, layout, None)}
    assert {name: part.endpoint for name, part in parts.items() if part.external} == {
        "postgres-platform": "db.example.com:6432",
        "openbao": "vault.example.com:443",
        "registry": "registry.example.com:443",
        "caddy": "unix//run/caddy.sock",
    }
    assert isinstance(parts["openbao"], External)
    assert "secret" not in str(vars(parts["postgres-platform"]))


def test_large_logs_are_copied_away_and_emptied(layout: Layout) -> None:
    log = layout.log / "server.log"
    for text in ("oldest\n", "older\n", "old\n"):
        with log.open("a") as file:  # as a part has it open: for appending
            file.write(text)
        rotate(layout.log, largest=3, kept=2)
    with log.open("a") as file:
        file.write("new")
    rotate(layout.log, largest=3, kept=2)
    found = {path.name: path.read_text() for path in layout.log.iterdir()}
    assert found == {"server.log": "new", "server.log.1": "old\n", "server.log.2": "older\n"}


def test_what_openbao_writes_down_is_renamed_and_it_is_told(layout: Layout) -> None:
    part = OpenBao(layout, None, largest_audit=5)
    audit = layout.home / "openbao" / "audit.jsonl"
    audit.parent.mkdir()
    told: list[int] = []
    audit.write_text("tiny")
    part.tend(told.append)
    assert told == []
    audit.write_text("large enough")
    part.tend(told.append)
    assert told == [signal.SIGHUP]
    assert (audit.parent / "audit.jsonl.1").read_text() == "large enough"


def test_somebody_elses_platform_is_left_alone(layout: Layout) -> None:
    nobody = 65534
    for folder in (layout.home, layout.home.parent, layout.home.parent.parent):
        folder.chmod(0o711)
    parts = layout.run / "parts"
    parts.chmod(0o700 if os.geteuid() == 0 else 0)
    code = (
        "import os, pwd; from pathlib import Path; from branchline.stack.ledger import Ledger\n"
        f"if os.geteuid() == 0: os.setuid({nobody})\n"
        f"Ledger(Path({str(layout.run)!r}))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    parts.chmod(0o700)
    assert child.stderr.strip().splitlines()[-1].startswith("branchline.domain.errors.Refused")


# --- the first start -------------------------------------------------------------------------------------------------


def test_the_subnet_overlaps_nothing(tmp_path: Path) -> None:
    free = IPv4Network("10.222.0.0/16")
    taken = [IPv4Network(f"10.{second}.128.0/26") for second in range(201, 255) if second != 222]
    assert first_start.choose_subnet(tmp_path, taken) == free
    with pytest.raises(PlatformBroke) as none_left:
        first_start.choose_subnet(tmp_path, [*taken, free])
    assert none_left.value.code == "no_addresses"


def test_taken_ports_are_passed_over() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not ports.is_free(port)
    base = 31_000
    chosen = ports.choose_ports(Ports(*[base] * len(fields(Ports))))
    values = [getattr(chosen, field.name) for field in fields(Ports)]
    assert len(set(values)) == len(values)
    assert all(base <= value <= ports.HIGHEST_PORT for value in values)


def test_a_port_that_somebody_else_has_is_named_with_who_has_it(layout: Layout) -> None:
    import socket

    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        part = Program(layout, "server")
        part.where = f"127.0.0.1:{port}"
        found = list(ports.taken([part], Ledger(layout.run)))
        assert [(one.name, number) for one, number, _ in found] == [("server", port)]
        assert str(os.getpid()) in found[0][2] or found[0][2] == "another program"
        Ledger(layout.run).write(Entry("server", State.UP, identity=Identity.of(os.getpid())))
        assert list(ports.taken([part], Ledger(layout.run))) == []


def test_no_port_above_those_that_linux_gives_out() -> None:
    with pytest.raises(PlatformBroke, match="No port is free"):
        ports.choose_ports(Ports(*[ports.HIGHEST_PORT] * len(fields(Ports))))


def test_a_home_whose_sockets_would_have_too_long_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        first_start.establish(tmp_path / ("x" * 80))
    assert refused.value.code in {"home_too_long", "no_server_user"}


def test_the_instance_is_named_after_its_home() -> None:
    name = first_start.instance_name(Path("/var/lib/branchline"))
    assert name == first_start.instance_name(Path("/var/lib/branchline"))
    assert name != first_start.instance_name(Path("/var/lib/branchline2"))
    assert name.startswith("bl")
    assert len(name) == 8
