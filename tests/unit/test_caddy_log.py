"""Counting in the access log: any number of lines, rolled files, and lines that are only half there."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

from branchline.adapters.caddy_log import AccessLog
from branchline.ports import Traffic

HOST = "develop-shop.localhost"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def line(ts: float, status: int = 200, host: str = HOST, duration: float = 0.001, uri: str = "/") -> str:
    request = {"method": "GET", "host": host, "uri": uri}
    return json.dumps({"ts": ts, "request": request, "duration": duration, "status": status}) + "\n"


def write(path: Path, lines: list[str], modified: float | None = None) -> None:
    path.write_text("".join(lines))
    if modified is not None:
        os.utime(path, (modified, modified))


def test_no_log_means_no_traffic(path: Path) -> None:
    log = AccessLog(path)
    assert log.count([HOST], log.mark()) == Traffic(0, 0)


def test_only_what_began_after_the_mark_counts(path: Path) -> None:
    write(path, [line(100.0, 500), line(200.5, 500, duration=0.4), line(200.5, 500, duration=0.6), line(201.0)])
    assert AccessLog(path).count([HOST], 200_000_000) == Traffic(2, 1)


def test_hostnames_are_compared_whole_without_port_and_case(path: Path) -> None:
    hosts = [HOST, f"{HOST}:8080", HOST.upper(), f"{HOST}.", f"x{HOST}", "other.localhost", f"{HOST}.evil.example"]
    write(path, [*(line(10, host=host) for host in hosts), line(10, host="other", uri=f"/{HOST}")])
    assert AccessLog(path).count([HOST], 0) == Traffic(4, 0)
    assert AccessLog(path).count([HOST.upper(), "other.localhost"], 0) == Traffic(5, 0)


def test_a_half_written_line_is_left_for_later(path: Path) -> None:
    write(path, [line(10), line(11, 503)[:-40]])
    assert AccessLog(path).count([HOST], 0) == Traffic(1, 0)
    write(path, [line(10), line(11, 503)])
    assert AccessLog(path).count([HOST], 0) == Traffic(2, 1)


@pytest.mark.parametrize("length", [10, 3000, 200_000])
def test_long_logs_are_searched_for_the_mark(path: Path, length: int) -> None:
    chance = random.Random(length)
    times = [1000 + number / 100 + chance.uniform(0, 0.5) for number in range(20_000)]
    write(
        path,
        [
            line(ts, chance.choice([200, 500]), uri="/" + "x" * (length if not n % 5000 else 5))
            for n, ts in enumerate(times)
        ],
    )
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    for mark in (0, 1000, 1000.7, 1111.11, 1199, 1300):
        fitting = [entry["status"] for entry in lines if entry["ts"] - entry["duration"] >= mark]
        assert AccessLog(path).count([HOST], int(mark * 1e6)) == Traffic(len(fitting), fitting.count(500))


def test_a_long_log_is_not_read_from_the_beginning(path: Path) -> None:
    write(path, [line(number / 1000) for number in range(300_000)])
    began = time.perf_counter()
    assert AccessLog(path).count([HOST], int(299.99e6)).requests == 9
    assert time.perf_counter() - began < 0.5


def test_rolled_logs_count_too_unless_they_are_too_old(path: Path) -> None:
    write(path, [line(300)], 300)
    write(path.with_name("access-2026-01-01T00-00-00.000.log"), [line(199), line(201, 500)], 201)
    write(path.with_name("access-2025-01-01T00-00-00.000.log"), [line(250, 500)], 100)
    write(path.with_name("other.log"), [line(300, 500)], 300)
    assert AccessLog(path).count([HOST], 200_000_000) == Traffic(2, 1)
