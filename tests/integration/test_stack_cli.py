"""The operator's commands on a whole platform: up, status, doctor, stop, and what is left after its removal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from branchline.layout import Layout
from branchline.stack import docker
from branchline.stack.ledger import SUPERVISOR, Ledger
from tests.conftest import new_layout

pytestmark = [pytest.mark.stack, pytest.mark.docker]

BRANCHLINE = Path(sys.executable).with_name("branchline")


class Operator:
    """Somebody at a shell on the platform's machine."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "BRANCHLINE_HOME": str(home), "NO_COLOR": "1"}

    def types(self, *words: str, expect: int = 0) -> str:
        done = subprocess.run(
            [BRANCHLINE, *words], env=self.environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def pids(self) -> dict[str, int]:
        shown = json.loads(self.types("status", "--json"))
        return {part["name"]: part["pid"] for part in shown["parts"] if part["pid"]}


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    made = new_layout()
    yield made
    environment = {**os.environ, "BRANCHLINE_HOME": str(made.home)}
    subprocess.run([sys.executable, "-m", "branchline.stack.removal"], env=environment, timeout=200, check=True)
    assert not made.home.exists()
    assert not [process for process in psutil.process_iter() if _belongs(process, made.home)]
    with docker.engine(limit=20) as engine:
        assert made.instance not in str(engine.networks.list())
        assert not engine.containers.list(all=True, filters={"label": f"{docker.INSTANCE_LABEL}={made.instance}"})


@pytest.fixture(scope="module")
def operator(layout: Layout) -> Operator:
    return Operator(layout.home)


@pytest.fixture
def running(operator: Operator) -> Operator:
    """The platform is up, whatever an earlier test did to it."""
    done = subprocess.run(
        [BRANCHLINE, "status"], env=operator.environment, capture_output=True, timeout=60, check=False
    )
    if done.returncode:
        operator.types("up", "--detach")
    return operator


def _belongs(process: psutil.Process, home: Path) -> bool:
    try:
        return process.pid != os.getpid() and any(str(home) in word for word in process.cmdline())
    except psutil.Error:
        return False


def _eventually(true: Callable[[], object], limit: float = 40) -> None:
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.1)


def test_without_a_platform_the_status_is_four(tmp_path: Path) -> None:
    nobody = Operator(tmp_path / "nothing")
    for command in ("status", "doctor", "stop"):
        assert "There is no platform" in nobody.types(command, expect=4)
    assert not (tmp_path / "nothing").exists()


def test_wrong_settings_are_said_in_words(tmp_path: Path) -> None:
    careless = Operator(tmp_path)
    careless.environment["BRANCHLINE_BUILDS_AT_ONCE"] = "many"
    assert "builds_at_once" in careless.types("up", expect=2)


def test_status_and_doctor_find_everything_well(running: Operator) -> None:
    shown = json.loads(running.types("status", "--json"))
    assert shown["well"] is True
    parts = {part["name"]: part for part in shown["parts"]}
    assert {"server", "runner-nonprod", "runner-production", "openbao", "caddy", "registry"} <= parts.keys()
    assert parts["server"]["memory"] > 1_000_000
    assert parts["server"]["endpoint"].startswith("http://127.0.0.1:")
    table = running.types("status")
    assert all(name in table for name in parts)

    found = json.loads(running.types("doctor", "--json"))
    assert found["well"] is True
    assert {"builder", "git", "keys", "disk", "clock", "gateway"} <= {one["subject"] for one in found["findings"]}


def test_a_second_up_says_who_runs(running: Operator, layout: Layout) -> None:
    holder = (layout.run / "supervisor.lock").read_text().strip()
    for words in (["up"], ["up", "--detach"]):
        said = running.types(*words, expect=2)
        assert f"process {holder}" in said
        assert "branchline stop" in said


def test_runners_and_server_come_back_after_a_kill(running: Operator) -> None:
    before = running.pids()
    ours = ("server", "runner-nonprod", "runner-production")
    for name in ours:
        os.kill(before[name], signal.SIGKILL)

    def back() -> bool:
        done = subprocess.run(
            [BRANCHLINE, "status", "--json"], env=running.environment, capture_output=True, check=False
        )
        shown = {part["name"]: part for part in json.loads(done.stdout)["parts"]}
        return all(shown[name]["well"] and shown[name]["pid"] != before[name] for name in ours)

    _eventually(back)


def test_the_doctor_notices_a_dead_supervisor_and_up_takes_over(running: Operator, layout: Layout) -> None:
    before = running.pids()
    entry = Ledger(layout.run).read(SUPERVISOR)
    assert entry is not None
    assert entry.identity is not None
    os.kill(entry.identity.pid, signal.SIGKILL)
    running.types("status", expect=1)
    assert "takes over what still runs" in running.types("doctor", expect=1)
    running.types("up", "--detach")
    assert running.pids() == before


def test_the_doctor_notices_an_open_key(running: Operator, layout: Layout) -> None:
    key = layout.home / "keys" / "production.pem"
    key.chmod(0o644)
    try:
        assert f"chmod 600 {key}" in running.types("doctor", expect=1)
    finally:
        key.chmod(0o600)


def test_environments_are_stopped_when_asked_and_start_with_the_platform(running: Operator, layout: Layout) -> None:
    with docker.engine(limit=60) as engine:
        container = engine.containers.run(
            "branchline/python:bookworm",
            ["sleep", "600"],
            name=f"{layout.instance}-worker",
            labels={docker.INSTANCE_LABEL: layout.instance},
            detach=True,
            init=True,
        )
        running.types("stop")
        container.reload()
        assert container.status == "running"
        running.types("up", "--detach")

        assert "1 container stopped" in running.types("stop", "--environments")
        container.reload()
        assert container.status == "exited"
        running.types("up", "--detach")
        container.reload()
        assert container.status == "running"
        container.remove(force=True)


def test_in_the_foreground_it_shows_its_parts_and_ends_with_control_c(running: Operator) -> None:
    running.types("stop")
    assert "the platform is stopped" in running.types("doctor", expect=1)
    child = subprocess.Popen([BRANCHLINE, "up"], env=running.environment, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    lines: list[str] = []
    for line in child.stdout:
        lines.append(line)
        if line.startswith("Admin token"):
            break
    text = "".join(lines)
    for name in ("server", "runner-nonprod", "postgres-platform", "openbao"):
        assert f"\n{name} " in "\n" + text
    assert "http://ENVIRONMENT-PROJECT.localhost:" in text
    assert Path(text.rpartition("in ")[2].strip()).stat().st_mode & 0o077 == 0
    child.send_signal(signal.SIGINT)
    rest, _ = child.communicate(timeout=100)
    assert child.returncode == 0
    assert "everything is stopped" in rest
    assert not [process for process in psutil.process_iter() if _belongs(process, running.home)]
