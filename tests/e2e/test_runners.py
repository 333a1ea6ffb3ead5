"""Several runners of a tier: they share the work, take over from the dead, and refuse those who come back late."""

from __future__ import annotations

import signal
import time

import pytest

from branchline.stack.ledger import Ledger
from tests.e2e.duo import ROAD, RUNNERS, UNDONE, Duo
from tests.e2e.holding import Holding
from tests.e2e.platform import Repository

pytestmark = pytest.mark.e2e

FIRST, SECOND = RUNNERS
EFFECTS = ("test", "publish", "prepare", "release", "start", "switch", "drain", "undo")
"""Stages that change something outside of the platform's own tables."""

TAKE_OVER = 6.0
"""Seconds from a runner's death until somebody else carries what it carried."""


def carriers(holding: Holding) -> dict[int, str]:
    """Who carries each running deployment."""
    return dict(holding.ask("SELECT id, runner FROM deployment WHERE state = 'running'"))


def test_runners_share_the_work(duo: Duo, holding: Holding, sites: dict[str, Repository]) -> None:
    duo.settled()
    asked = [duo.request(f"at-{stage}").json()["id"] for stage in ROAD]
    for number in asked:
        assert duo.ended(number)["state"] == "succeeded", duo.log(number)
    begun = {
        line["detail"]["runner"]
        for stage in ROAD
        for line in duo.register(f"at-{stage}")
        if line["kind"] == "deployment.started" and line["deployment"] in asked
    }
    assert len(begun) == 2


def test_what_a_dead_runner_carried_is_taken_over_within_seconds(
    duo: Duo, holding: Holding, sites: dict[str, Repository]
) -> None:
    duo.settled()
    with holding.at([(f"at-{stage}", "verify", "begin") for stage in ROAD[:6]]) as held:
        asked = [duo.request(f"at-{stage}").json()["id"] for stage in ROAD[:6]]
        held.wait()
        before = carriers(holding)
        duo.kill(FIRST)
        killed = time.monotonic()
        while set(before.values()) <= set(carriers(holding).values()):
            assert time.monotonic() - killed < TAKE_OVER, "nobody took over"
            time.sleep(0.05)
        took = time.monotonic() - killed
    assert took < TAKE_OVER
    for number in asked:
        assert duo.ended(number)["state"] == "succeeded", duo.log(number)
        duo.check_story(number, ROAD)


@pytest.mark.parametrize("moment", ["begin", "end"])
def test_a_paused_runner_cannot_harm_what_went_on_without_it(
    duo: Duo, holding: Holding, sites: dict[str, Repository], moment: str
) -> None:
    """It stands still in every stage that has effects; others finish, and bring something newer; then it wakes up."""
    duo.settled()
    version = f"paused-{moment}-{time.monotonic_ns()}"
    with holding.at([(f"at-{stage}", stage, moment) for stage in EFFECTS]) as held:
        duo.signal(signal.SIGSTOP, SECOND)
        for stage in EFFECTS:
            duo.push(sites[stage], f"{version}-old", fault="sick" if stage == "undo" else "")
        asked = {stage: duo.request(f"at-{stage}").json()["id"] for stage in EFFECTS}
        time.sleep(3)
        duo.signal(signal.SIGCONT, SECOND)
        held.wait()
        paused = next(entry for entry in [Ledger(duo.layout.run).read(FIRST)] if entry and entry.identity)
        duo.signal(signal.SIGSTOP, FIRST)
    try:
        for stage, number in asked.items():
            done = duo.ended(number)
            assert done["state"] == ("undone" if stage == "undo" else "succeeded"), duo.log(number)
        newer = {}
        for stage in EFFECTS:
            duo.push(sites[stage], version)
            newer[stage] = duo.request(f"at-{stage}").json()["id"]
        for number in newer.values():
            assert duo.ended(number)["state"] == "succeeded", duo.log(number)
        assert paused.alive, "the supervisor was quicker: nobody is left who could come late"
    finally:
        duo.signal(signal.SIGCONT, FIRST)
    until = time.monotonic() + 10
    while paused.alive:
        assert time.monotonic() < until, "who lost everything goes on"
        time.sleep(0.05)
    duo.settled()
    for stage in EFFECTS:
        assert duo.version(f"at-{stage}") == version
        duo.check_place(f"at-{stage}", newer[stage])
        duo.check_story(asked[stage], UNDONE if stage == "undo" else ROAD)
        duo.check_story(newer[stage], ROAD)
