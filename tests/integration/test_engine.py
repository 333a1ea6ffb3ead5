"""The durable engine on real PostgreSQL: stories go on after their process was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import randrange
from uuid import uuid4

import pytest

from branchline.store.database import SqlStore
from branchline.store.leases import Lease

pytestmark = pytest.mark.stack

PROGRAM = """
import sys, time
from pathlib import Path
from branchline.adapters.engine import DbosEngine
from branchline.domain.config import Secret
from branchline.domain.environment import Tier
from branchline.domain.errors import TakenOver
from branchline.store.database import connect
from branchline.store.leases import Lease

runner, dead, deployment, notes = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
engine = connect(Secret(sys.stdin.readline().strip()))

def note(text):
    with notes.open("a") as file:
        file.write(f"{runner} {text}\\n")

def wait():
    note("begins b")
    if runner == "first":
        time.sleep(60)
    return {"b": 2}

def fence():
    raise TakenOver("Another runner carries it.")

def tell(number, durable):
    def first():
        note("runs a")
        return {"a": 1}
    a = durable.step("a", first)
    b = durable.step("b", wait)
    if runner == "fenced":
        durable.step("c", fence)
    note(f"told {a} {b}")

lease = Lease(engine, runner)
stories = DbosEngine(engine, Tier.NONPROD, runner, tell)
stories.launch()
if dead == "-":
    assert not stories.knows(deployment)
    assert stories.teller(deployment) is None
    stories.start(deployment)
    assert stories.teller(deployment) == runner
else:
    assert lease.dead(dead)
    stories.take_over(dead)
while not stories.ended(deployment):
    time.sleep(0.05)
assert stories.teller(deployment) == runner
stories.stop(0)
"""


@contextmanager
def program(store: SqlStore, runner: str, dead: str, deployment: int, notes: Path) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", PROGRAM, runner, dead, str(deployment), str(notes)]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, text=True)
    assert child.stdin
    child.stdin.write(store.engine.url.render_as_string(hide_password=False) + "\n")
    child.stdin.flush()
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def until(notes: Path, words: str) -> None:
    limit = time.monotonic() + 30
    while not (notes.exists() and words in notes.read_text()):
        assert time.monotonic() < limit, notes.read_text() if notes.exists() else "nothing was noted"
        time.sleep(0.02)


def test_a_story_goes_on_in_another_process(sql_store: SqlStore, tmp_path: Path) -> None:
    deployment, notes = randrange(10**9, 2 * 10**9), tmp_path / "notes"
    with program(sql_store, "first", "-", deployment, notes) as first:
        until(notes, "first begins b")
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with program(sql_store, "second", "first", deployment, notes) as second:
            assert second.wait(timeout=30) == 0
    assert notes.read_text().splitlines() == [
        "first runs a",
        "first begins b",
        "second begins b",
        "second told {'a': 1} {'b': 2}",
    ]


def test_a_runner_that_was_taken_over_lets_go_at_once(sql_store: SqlStore, tmp_path: Path) -> None:
    with program(sql_store, "fenced", "-", randrange(10**9, 2 * 10**9), tmp_path / "notes") as fenced:
        assert fenced.wait(timeout=30) == 75
    assert "told" not in (tmp_path / "notes").read_text()


def test_a_lease_ends_with_its_session(sql_store: SqlStore) -> None:
    mine, other = uuid4().hex, uuid4().hex
    watcher, holder = Lease(sql_store.engine, mine), Lease(sql_store.engine, other)
    assert holder.held()
    assert not watcher.dead(other)
    with sql_store.engine.connect() as db:
        db.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'branchline-lease'"
            f" AND pid = {holder.session}"
        )
    assert not holder.held()
    assert watcher.dead(other)
    watcher.bury(other)
    assert watcher.dead(other)


def test_the_server_notices_a_host_that_vanished(sql_store: SqlStore) -> None:
    holder = Lease(sql_store.engine, uuid4().hex)
    told = {
        name: holder._db.execute(f"SHOW {name}").fetchone()[0]
        for name in ("tcp_keepalives_idle", "tcp_keepalives_count", "tcp_user_timeout")
    }
    assert told == {"tcp_keepalives_idle": "2", "tcp_keepalives_count": "3", "tcp_user_timeout": "5000"}
