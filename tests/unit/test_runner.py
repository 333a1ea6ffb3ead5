"""A runner looks after deployments whose runner died, wherever the crash left them."""

from __future__ import annotations

import pytest

from branchline.domain.audit import Kind
from branchline.domain.deployment import Deployment, State, Trigger
from branchline.domain.environment import Destination, Tier
from branchline.domain.pipeline import Stage
from branchline.operations.carrying import MARGIN, Carrying
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


class Survivor(Runner):
    """A runner that notes what it begins, and whose leases are in memory."""

    def __init__(self, store: MemoryStore, leases: Leases) -> None:
        self._store, self._lease = store, leases
        self._tier, self._name = Tier.NONPROD, "me"
        self._carrying = Carrying()
        self.begun: list[Deployment] = []

    def _begin(self, deployment: Deployment) -> None:
        self._carrying.at(deployment.id, None)
        self.begun.append(deployment)

    def look(self) -> None:
        self._look_after_running()


class World:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.leases = Leases({"dead", "dead too"})
        self.runner = Survivor(self.store, self.leases)
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


def carried_by(world: World, runner: str) -> None:
    world.store.tables.runners[world.deployment] = runner


def test_what_a_dead_runner_carried_is_taken_over(world: World) -> None:
    world.runner.look()
    (taken,) = world.runner.begun
    assert (taken.id, taken.attempt) == (world.deployment, 2)
    assert world.store.tables.runners[world.deployment] == "me"
    assert world.leases.locked == []


def test_what_a_living_runner_carries_is_left_alone(world: World) -> None:
    carried_by(world, "alive")
    world.runner.look()
    assert (world.runner.begun, world.leases.locked) == ([], [])


def test_who_comes_second_to_a_dead_runner_takes_nothing(world: World) -> None:
    """Both saw it die; the other one was quicker between our look at the table and our turn."""
    dead = world.leases.dead

    def then_another_takes_over(runner: str) -> bool:
        carried_by(world, "alive")
        return dead(runner)

    world.leases.dead = then_another_takes_over
    world.runner.look()
    assert (world.runner.begun, world.leases.locked) == ([], [])


def test_a_story_that_broke_off_here_is_begun_anew(world: World) -> None:
    carried_by(world, "me")
    world.runner.look()
    world.runner.look()
    assert [one.attempt for one in world.runner.begun] == [2]
    world.runner._carrying.leave(world.deployment)
    world.runner.look()
    assert [one.attempt for one in world.runner.begun] == [2, 3]


def test_what_never_comes_to_an_end_is_given_up(world: World) -> None:
    carried_by(world, "me")
    for _ in range(200):
        world.runner.look()
        world.runner._carrying.leave(world.deployment)
    with world.store.transaction() as records:
        ended = records.deployments.get(world.deployment)
    assert ended.failure
    assert (ended.state, ended.failure.code) == (State.BROKEN, "given_up")
    kinds = [event.kind for _, event in world.store.tables.events]
    assert kinds == [*[Kind.DEPLOYMENT_TAKEN_OVER] * 100, Kind.DEPLOYMENT_FINISHED]
    assert len(world.runner.begun) < 150


class Ended(BaseException):
    """What the process's end is in these tests."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The statuses with which the process ended itself."""
    seen: list[int] = []

    def end(status: int) -> None:
        seen.append(status)
        raise Ended

    monkeypatch.setattr("os._exit", end)
    return seen


@pytest.mark.parametrize("mine", [True, False])
def test_a_hanging_stage_is_noted_and_left_to_a_new_process(world: World, exits: list[int], mine: bool) -> None:
    if mine:
        carried_by(world, "me")
    now = [0.0]
    world.runner._carrying = Carrying(lambda: now[0])
    with world.store.transaction() as records:
        records.deployments.begin_stage(world.deployment, Stage.BUILD)
    world.runner._carrying.at(world.deployment, Stage.BUILD, 60)
    world.runner._look_for_hanging()
    assert exits == []
    now[0] = 60 + MARGIN + 1
    with pytest.raises(Ended):
        world.runner._look_for_hanging()
    with world.store.transaction() as records:
        (stage,) = records.deployments.stages(world.deployment)
    assert exits == [70]
    assert stage.hung == mine, "of another's deployment nothing is said"


def test_deployments_that_only_watch_leave_room_for_others(world: World) -> None:
    world.runner._at_once = 2
    carrying = world.runner._carrying
    for number in range(5):
        carrying.at(number, Stage.WATCH, 60)
    carrying.at(10, Stage.BUILD, 60)
    assert world.runner._has_room()
    carrying.at(11, None)
    assert not world.runner._has_room()
