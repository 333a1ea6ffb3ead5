"""Chaos: pushes and kills at random, and in the end everything is as it should be.

`CHAOS_SEED`, `CHAOS_PUSHES` and `CHAOS_KILLS` in the environment repeat a run, or make a longer one.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

from branchline.stack.ledger import SUPERVISOR
from branchline.stack.programs import FORK_SERVER
from tests.e2e.duo import ROAD, RUNNERS, Duo
from tests.e2e.platform import Repository

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SEED = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))
PUSHES = int(os.environ.get("CHAOS_PUSHES") or 50)
KILLS = int(os.environ.get("CHAOS_KILLS") or 30)
PLACES = ("checkout", "build", "test", "publish", "prepare")
VICTIMS = (
    *RUNNERS,
    *RUNNERS,  # they do the work, so they die twice as often
    "server",
    "postgres-platform",
    "postgres-nonprod",
    "openbao",
    "registry",
    "caddy",
    FORK_SERVER,
    SUPERVISOR,
    "pause",
)
CADDY_GAP = 15.0
"""Seconds after its death in which the proxy may be out of reach; it may lose its supervisor, too, meanwhile."""


class Killer(threading.Thread):
    """Kills something every second or two, and now and then pauses a runner for longer than others wait."""

    def __init__(self, duo: Duo, dice: random.Random) -> None:
        super().__init__()
        self.duo = duo
        self.dice = dice
        self.killed: list[str] = []
        self.caddy_died: list[float] = []
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            while len(self.killed) < KILLS:
                time.sleep(self.dice.uniform(0.5, 2.5))
                victim = self.dice.choice(VICTIMS)
                if victim == "pause":
                    runner = self.dice.choice(RUNNERS)
                    self.duo.signal(signal.SIGSTOP, runner)
                    time.sleep(self.dice.choice([1, 13]))
                    self.duo.signal(signal.SIGCONT, runner)
                    continue
                self.killed += self.duo.kill(victim)  # one that was dead already does not count
                if victim == "caddy":
                    self.caddy_died.append(time.monotonic())
                if victim == SUPERVISOR:  # the operator's init system does this
                    self.duo.cli("up", "--detach")
        except BaseException as fault:  # it is told by the test, in its own thread
            self.fault = fault


def test_chaos(duo: Duo, sites: dict[str, Repository], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nCHAOS_SEED={SEED}")
    duo.settled()
    dice = random.Random(SEED)
    killer = Killer(duo, random.Random(SEED + 1))
    asked: dict[str, list[int]] = {place: [] for place in PLACES}
    newest: dict[str, str] = {}
    with duo.visited([f"develop-at-{place}.localhost" for place in PLACES]) as failures:
        killer.start()
        for number in range(PUSHES):
            place = dice.choice(PLACES)
            newest[place] = duo.push(sites[place], f"chaos-{SEED}-{number}")
            answer = duo.request(f"at-{place}")
            assert answer.status_code == 201, f"seed {SEED}: {answer.text}"
            asked[place].append(answer.json()["id"])
            time.sleep(dice.uniform(0.2, 1.5))
        killer.join()
        assert killer.fault is None, f"seed {SEED}: {killer.fault!r}"
        duo.settled(120)
        for number in [number for numbers in asked.values() for number in numbers]:
            duo.ended(number, within=300)
    failures = [one for one in failures if not any(0 <= one[0] - died < CADDY_GAP for died in killer.caddy_died)]
    assert failures == [], f"seed {SEED}, after {killer.killed}: {len(failures)}, of which {failures[:5]}"
    for place, numbers in asked.items():
        ended = [duo.ended(number, within=300) for number in numbers]
        states = [(done["id"], done["state"], done["failure"]) for done in ended]
        about = f"seed {SEED}, after {killer.killed}: {states}"
        assert {done["state"] for done in ended} <= {"succeeded", "superseded"}, about
        if not numbers:
            continue
        shown = duo.api("GET", f"/projects/at-{place}/environments/develop").json()
        assert shown["live"]["commit"] == newest[place], about
        duo.check_place(f"at-{place}", shown["live"]["id"])
        duo.await_tidy_images(f"at-{place}")
        for done in ended:
            if done["state"] == "succeeded":
                duo.check_story(done["id"], ROAD)
