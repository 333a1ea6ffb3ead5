"""Cancelling, and stages that take too long: what runs ends and leaves nothing; after the switch it is refused."""

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


def assert_nothing_left(platform: Platform, name: str, live: int) -> None:
    """Of a deployment that did not go well there is no container and no network, and the one before serves on."""
    mine = ("--filter", f"label=branchline.instance={platform.layout.instance}")
    mine = (*mine, "--filter", f"label=branchline.project={name}")
    left = docker("ps", "--all", *mine, "--format={{.Names}}")
    assert all(f"-d{live}-" in one for one in left), left
    assert docker("network", "ls", *mine, "--format={{.Name}}") == [f"{platform.layout.instance}-{name}_develop"]
    assert platform.version(name) == "1"


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
    assert_nothing_left(platform, name, before["id"])


@pytest.mark.parametrize("stage", ["build", "test", "release"])
def test_a_stage_that_hangs_fails_with_its_last_words(platform: Platform, name: str, stage: str) -> None:
    repository = platform.project(name)
    repository.push("something to keep")
    before = platform.deploy(name)
    assert before["state"] == "succeeded", platform.why(before)
    seconds = str(100_000 + time.monotonic_ns() % 800_000)
    if stage == "build":
        repository.change("Dockerfile", "WORKDIR /app", f"RUN echo last words && sleep {seconds}\nWORKDIR /app")
    else:
        command = f"sh -c 'echo last words; sleep {seconds}'"
        usual = {"test": "command: python3 test_app.py", "release": "release: python3 -c \"print('migrated')\""}
        repository.change("branchline.yaml", usual[stage], f"{usual[stage].partition(':')[0]}: {command}")
    repository.change("branchline.yaml", "project:", f"timeouts: {{{stage}: 4s}}\nproject:")
    repository.push("never ends")
    done = platform.deploy(name)
    assert (done["state"], done["failed_stage"], done["failure"]["code"]) == ("failed", stage, "stage_timed_out")
    assert "within its 4 s" in done["failure"]["sentence"]
    assert "last words" in done["failure"]["hint"]
    assert f"`timeouts.{stage}` in the manifest" in done["failure"]["hint"]
    (took,) = [one["seconds"] for one in done["stages"] if one["name"] == stage]
    assert 4 <= took < 4 + ENDED
    assert not running(seconds)
    assert_nothing_left(platform, name, before["id"])


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
