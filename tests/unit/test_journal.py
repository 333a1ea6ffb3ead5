"""The deployment's log: live, bounded, redacted, patient."""

from __future__ import annotations

import random
import string
import time

import pytest

from branchline.adapters.lines import Lines
from branchline.domain.config import Secret
from branchline.domain.pipeline import Stage
from branchline.operations.journal import LINE_LIMIT, TAIL_LINES, DeploymentLog
from tests.fakes.store import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def texts(store: MemoryStore) -> list[str]:
    return [line.text for line in store.read_log(1, 0, 10_000_000)]


def test_lines_are_live_within_moments(store: MemoryStore) -> None:
    log = DeploymentLog(store, 1, limit=10_000)
    log.begin(Stage.BUILD)
    log.write("step 1\n")
    until = time.monotonic() + 2
    while not texts(store) and time.monotonic() < until:
        time.sleep(0.01)
    assert [(line.stage, line.text) for line in store.read_log(1, 0, 10)] == [("build", "step 1")]
    log.close()


def test_secrets_are_hidden_from_the_moment_they_are_known(store: MemoryStore) -> None:
    log = DeploymentLog(store, 1, limit=10_000)
    log.hide([Secret("correct horse battery")])
    log.write("password is correct horse battery, said the app")
    assert log.last == "password is [hidden], said the app"
    log.close()
    assert texts(store) == ["password is [hidden], said the app"]


def test_a_huge_log_keeps_its_beginning_and_its_end(store: MemoryStore) -> None:
    log = DeploymentLog(store, 1, limit=1000)
    log.begin(Stage.TEST)
    for number in range(5000):
        log.write(f"line {number}")
    log.close()
    lines = texts(store)
    assert lines[0] == "line 0"
    assert lines[-1] == "line 4999"
    (note,) = [line for line in lines if "left out" in line]
    kept = len(lines) - 1
    assert f"{5000 - kept} lines left out" in note
    assert lines[lines.index(note) + 1 :] == [f"line {number}" for number in range(5000 - TAIL_LINES, 5000)]


def test_a_resumed_log_counts_what_it_holds_already(store: MemoryStore) -> None:
    for _ in range(2):
        log = DeploymentLog(store, 1, limit=100)
        for number in range(1000):
            log.write(f"line {number:04}")
        log.close()
    notes = [place for place, line in enumerate(texts(store)) if "left out" in line]
    first_run, second_run = notes[0], notes[1] - notes[0] - 1 - TAIL_LINES
    assert (first_run, second_run) == (10, 0)


def test_a_long_line_is_cut_and_says_so(store: MemoryStore) -> None:
    log = DeploymentLog(store, 1, limit=10_000_000)
    log.write("x" * 1_000_000)
    log.close()
    (line,) = texts(store)
    assert len(line) < LINE_LIMIT + 100
    assert line.endswith(f"… [{1_000_000 - LINE_LIMIT} more characters]")


def a_value(size: int) -> str:
    return "".join(random.Random(size).choices(string.ascii_letters + string.digits, k=size))


@pytest.mark.parametrize("size", [20_000, 40_000])
@pytest.mark.parametrize("before", [0, 10_000, 16 * 1024 - 7, 16 * 1024 - 2, 34 * 1024 - 9])
@pytest.mark.parametrize("streamed", [True, False])
def test_no_part_of_a_secret_stays_before_a_cut(store: MemoryStore, size: int, before: int, streamed: bool) -> None:
    secret, log, lines = a_value(size), DeploymentLog(store, 1, limit=10_000_000), Lines()
    log.hide([Secret(secret), Secret("secret-of-a-usual-size" * 2)])
    written = f"{'.' * before}{secret} and more of it, for {'long' * 10_000}"
    for line in [*lines.feed(written.encode() + b"\n")] if streamed else [written]:
        log.write(line)
    log.close()
    (shown,) = texts(store)
    assert set(shown.partition("…")[0].partition(" and more")[0].replace("[hidden]", "")) <= {"."}
    assert len(shown) < LINE_LIMIT + 100


def test_what_a_stream_cut_short_is_not_cut_again(store: MemoryStore) -> None:
    log, lines = DeploymentLog(store, 1, limit=10_000_000), Lines()
    for line in lines.feed(b"x" * 50_000 + b"\n"):
        log.write(f"web: {line}")
    log.close()
    assert texts(store) == [f"web: {'x' * (16 * 1024 - 1)}… [{50_001 - 16 * 1024} more bytes]"]


def test_a_secret_with_control_characters_is_hidden(store: MemoryStore) -> None:
    log, lines = DeploymentLog(store, 1, limit=10_000), Lines()
    log.hide([Secret("correct\x01horse\x1b[1mbattery")])
    for line in lines.feed(b"it is correct\x01horse\x1b[1mbattery\n"):
        log.write(line)
    log.close()
    assert texts(store) == ["it is [hidden]"]
    assert log.clean("it is correct\x01horse\x1b[1mbattery\x00") == "it is [hidden]␀"


def test_lines_wait_while_the_database_is_away(store: MemoryStore) -> None:
    log = DeploymentLog(store, 1, limit=10_000)
    store.away = True
    for number in range(10):
        log.write(f"line {number}")
    log.end_stage()
    time.sleep(0.25)
    store.away = False
    log.close()
    assert texts(store) == [f"line {number}" for number in range(10)]
