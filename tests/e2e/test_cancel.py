"""Cancelling: what runs ends at once and leaves nothing; once the traffic was switched, it is refused."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
import pytest

from tests.e2e.duo import docker
from tests.e2e.platform import Platform

pytestmark = pytest.mark.e2e

ENDED = 3.0
"""Seconds from the request until nothing is left: one, and what a busy machine adds."""


def running(word: str) -> bool:
    """Whether a process of this machine, those in containers included, has this word as an argument of its own."""
    return any(word in (one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"]))


def eventually(condition: Callable[[], bool], within: float) -> bool:
    until = time.monotonic() + within
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("stage", ["build", "test"])
def test_what_runs_is_gone_within_moments(platform: Platform, name: str, stage: str) -> None:
    repository = platform.project(name)
    repository.push("something to keep")
    before = platform.deploy(name)
    assert before["state"] == "succeeded", platform.log(before["id"])
    seconds = str(100_000 + time.monotonic_ns() % 800_000)
    if stage == "build":
        repository.change("Dockerfile", "WORKDIR /app", f"RUN sleep {seconds}\nWORKDIR /app")
    else:
        repository.change("branchline.yaml", "command: python3 test_app.py", f"command: sleep {seconds}")
    repository.push("never ends")
    number = platform.request(name).json()["id"]
    assert eventually(lambda: running(seconds), 60), platform.log(number)
    asked = time.monotonic()
    assert platform.api("POST", f"/deployments/{number}/cancel").status_code == 200
    assert eventually(lambda: not running(seconds), ENDED), "it still runs"
    done = platform.ended(number, within=ENDED * 2)
    assert time.monotonic() - asked < ENDED * 2
    assert (done["state"], done["failed_stage"], done["failure"]["code"]) == ("cancelled", stage, "cancelled")
    assert "cancelled" in done["failure"]["sentence"]
    mine = ("--filter", f"label=branchline.instance={platform.layout.instance}")
    left = docker("ps", "--all", *mine, "--filter", f"label=branchline.project={name}", "--format={{.Names}}")
    assert all(f"-d{before['id']}-" in one for one in left), left
    assert platform.version(name) == "1"


def test_it_is_refused_after_the_switch_with_the_reason(platform: Platform, name: str) -> None:
    repository = platform.project(name)
    repository.change("branchline.yaml", "window: 2s", "window: 6s")
    repository.push("good")
    number = platform.request(name).json()["id"]
    platform.stage(number, "watch")
    answer = platform.api("POST", f"/deployments/{number}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "past_switch")
    assert "has switched the traffic already" in answer.json()["title"]
    assert "deploy the commit that was live before" in answer.json()["hint"]
    assert platform.ended(number)["state"] == "succeeded"
