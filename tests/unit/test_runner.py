"""A runner looks after deployments whose runner died, wherever the crash left them."""

from __future__ import annotations

import threading

import pytest

from branchline.domain.audit import Kind
from branchline.domain.deployment import State, Trigger
from branchline.domain.environment import Destination, Tier
from branchline.ports import Revision
from branchline.runner import Runner
from tests.fakes.store import MemoryStore


class Leases:
    """Who lives; a runner's own lease counts as free to itself, as an advisory lock does."""

    def __init__(self, dead: set[str]) -> None:
        self.gone = dead
        self.locked: list[str] = []

    def dead(self, runner: str) -> bool:
        if runner in {*self.gone, "me"}:
            self.locked.append(runner)
            return True
        return False

    def bury(self, runner: str) -> None:
        self.locked.remove(runner)


class Stories:
    """Who told which story last, and which of them ended; `begun` and `taken` are what was asked for."""

    def __init__(self) -> None:
        self.tellers: dict[int, str] = {}
        self.over: set[int] = set()
        self.begun: list[int] = []
        self.taken: list[str] = []

    def knows(self, deployment: int) -> bool:
        return deployment in self.tellers

    def teller(self, deployment: int) -> str | None:
        return self.tellers.get(deployment)

    def ended(self, deployment: int) -> bool:
        return deployment in self.over

    def take_over(self, runner: str) -> None:
        self.taken.append(runner)

    def start(self, deployment: int) -> None:
        self.begun.append(deployment)


class Survivor(Runner):
    """A runner whose engine and leases are in memory."""

    def __init__(self, store: MemoryStore, leases: Leases, stories: Stories) -> None:
        self._store, self._lease, self._engine = store, leases, stories
        self._tier, self._name = Tier.NONPROD, "me"
        self._carrying, self._lock = set(), threading.Lock()

    def look(self) -> None:
        self._look_after_orphans()


class World:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.leases = Leases({"dead", "dead too"})
        self.stories = Stories()
        self.runner = Survivor(self.store, self.leases, self.stories)
        with self.store.transaction() as records:
            project = records.projects.add("shop", "/srv/shop.git")
            place = records.environments.ensure(project, Destination("develop", Tier.NONPROD))
            revision = Revision("refs/heads/develop", "a" * 40, "")
            records.deployments.add(place, revision, actor="ada", trigger=Trigger.CLI, reason="")
            claimed = records.deployments.claim(Tier.NONPROD, "dead")
        assert claimed
        self.deployment = claimed.id

    def state(self) -> State:
        with self.store.transaction() as records:
            return records.deployments.get(self.deployment).state


@pytest.fixture
def world() -> World:
    return World()


def test_a_story_that_was_being_told_is_taken_over(world: World) -> None:
    world.stories.tellers[world.deployment] = "dead"
    world.runner.look()
    assert (world.stories.taken, world.leases.locked) == (["dead"], [])


def test_a_deployment_that_was_claimed_and_not_begun_begins(world: World) -> None:
    world.runner.look()
    assert (world.stories.begun, world.leases.locked) == ([world.deployment], [])


def test_a_story_whose_new_teller_died_before_it_said_so_is_taken_over(world: World) -> None:
    world.stories.tellers[world.deployment] = "dead too"
    world.runner.look()
    assert (world.stories.taken, world.leases.locked) == (["dead too"], [])


@pytest.mark.parametrize("teller", ["alive", "me"])
def test_a_story_that_somebody_tells_already_is_left_alone(world: World, teller: str) -> None:
    world.stories.tellers[world.deployment] = teller
    world.runner.look()
    assert (world.stories.taken, world.stories.begun, world.leases.locked) == ([], [], [])


@pytest.mark.parametrize("carrier", ["dead", "me"])
def test_a_story_that_broke_does_not_block_its_environment(world: World, carrier: str) -> None:
    with world.store.transaction() as records:
        records.deployments.adopt(world.deployment, carrier)
    world.stories.tellers[world.deployment] = carrier
    world.stories.over.add(world.deployment)
    world.runner.look()
    assert world.state() is State.BROKEN
    assert [event.kind for _, event in world.store.tables.events] == [Kind.DEPLOYMENT_FINISHED]


def test_living_runners_keep_what_they_carry(world: World) -> None:
    with world.store.transaction() as records:
        records.deployments.adopt(world.deployment, "alive")
    world.runner.look()
    assert (world.stories.taken, world.stories.begun, world.state()) == ([], [], State.RUNNING)
