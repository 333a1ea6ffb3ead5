"""Who comes when: one at a time in an environment, the newest before those that wait, builds in their own limit."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.duo import Duo

pytestmark = pytest.mark.e2e

KIND = "deployment.superseded"


def test_twenty_pushes_in_ten_seconds_make_few_deployments(duo: Duo, name: str) -> None:
    duo.settled()
    repository = duo.quick_project(name, {"window: 2s": "window: 10s"})  # the default
    began = time.monotonic()
    asked = []
    for number in range(20):
        duo.push(repository, str(number))
        asked.append(duo.request(name).json()["id"])
        time.sleep(max(0.0, began + number * 0.5 - time.monotonic()))
    assert time.monotonic() - began < 15
    ended = [duo.ended(number) for number in asked]
    ran = [done for done in ended if done["state"] != "superseded"]
    assert len(ran) <= 3
    assert {done["state"] for done in ran} == {"succeeded"}
    told = {line["deployment"]: line["detail"] for line in duo.register(name) if line["kind"] == KIND}
    for done, newer in pairwise(ended):
        if done["state"] == "superseded":
            assert done["superseded_by"] == newer["id"], "each that waits gives way to the very next"
            said = told.pop(done["id"])
            assert (said["by"], said["by_actor"], said["for"]) == (newer["id"], "bootstrap", "bootstrap")
            assert said["commit"] == done["commit"]
    assert told == {}
    assert duo.version(name) == "19"
    spans = sorted((done["started_at"], done["finished_at"]) for done in ran)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_builds_have_a_limit_that_all_runners_share(duo: Duo, name: str) -> None:
    duo.settled()
    names = [f"{name}{number}" for number in range(5)]
    sleep = f"2.{time.monotonic_ns() % 10**9:09}"
    for one in names:
        repository = duo.quick_project(one)
        repository.change("Dockerfile", "WORKDIR /app", f"RUN echo {one} && sleep {sleep}\nWORKDIR /app")
        duo.push(repository, "1")
    most, over = [0], threading.Event()

    def count() -> None:
        while not over.wait(0.05):
            most.append(sleeps(sleep))

    counting = threading.Thread(target=count)
    counting.start()
    try:
        for number in [duo.request(one).json()["id"] for one in names]:
            assert duo.ended(number)["state"] == "succeeded", duo.log(number)
    finally:
        over.set()
        counting.join()
    assert max(most) == 2


def sleeps(seconds: str) -> int:
    """How many processes of this machine sleep for exactly so long."""
    found = 0
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        found += words[:2] == [b"sleep", seconds.encode()]
    return found
