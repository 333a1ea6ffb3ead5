"""What housekeeping removes and what it must never touch, over fakes."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchline.domain.deployment import State
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import PlatformBroke
from branchline.domain.pipeline import Stage
from branchline.domain.retention import Use, unneeded
from branchline.operations.housekeeping import Housekeeping, Rules
from branchline.operations.pipeline import PUBLISHING
from branchline.ports import ServiceSpec
from tests.fakes.images import FakeArchive
from tests.fakes.log import FakeInterrupt
from tests.unit.test_deploy import MANIFEST, Killed, World

USES = st.lists(
    st.builds(
        Use,
        release=st.integers(1, 12),
        environment=st.integers(1, 3),
        succeeded=st.none() | st.integers(1, 99),
        needed=st.booleans(),
    ),
    max_size=40,
    unique_by=(
        lambda use: (use.release, use.environment),
        lambda use: (use.environment, use.succeeded or -use.release),  # a deployment has one release
    ),
)


@given(USES, st.integers(1, 5))
def test_what_goes_is_needed_by_nobody_and_what_stays_is_bounded(uses: list[Use], keep: int) -> None:
    gone = unneeded(uses, keep)
    kept = {use.release for use in uses} - gone
    assert not gone & {use.release for use in uses if use.needed}
    for environment in {use.environment for use in uses}:
        succeeded = sorted((use for use in uses if use.environment == environment and use.succeeded), key=newest)
        assert {use.release for use in succeeded[-keep:]} <= kept
    assert len(kept) <= keep * len({use.environment for use in uses}) + sum(use.needed for use in uses)
    assert unneeded([use for use in uses if use.release in kept], keep) == set()


def newest(use: Use) -> int:
    return use.succeeded or 0


BRIEF = MANIFEST.replace("window: 0.3s", "window: 10ms")


class Kept:
    """A world, and who keeps house in it: two releases are kept, and logs of three deployments."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.archive = FakeArchive(self.world.images)
        self.rules = Rules(releases=2, logs=3, logs_for=timedelta(days=9), build_cache=1000, every=60)

    def house(self) -> Housekeeping:
        world = self.world
        pipeline = world.runner().pipeline
        return Housekeeping(
            world.store, pipeline, world.containers, world.images, self.archive, tier=Tier.NONPROD, rules=self.rules
        )

    def images(self) -> set[str]:
        with self.world.store.transaction() as records:
            return records.releases.images()


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_images_of_the_newest_releases_stay_here_and_in_the_registry(kept: Kept) -> None:
    world = kept.world
    done = [world.deploy(BRIEF) for _ in range(5)]
    with world.store.transaction() as records:
        releases = [records.releases.get(one.release).image for one in done if one.release]
    assert len(set(releases)) == 5
    kept.house().prune_images()
    assert kept.images() == set(releases[3:]) == set(world.images.published)
    assert {name.partition("/")[2] for name in world.images.names if "@" in name} == set(releases[3:])
    assert kept.archive.reclaimed == 1


def test_what_is_live_stays_however_old_it_is(kept: Kept) -> None:
    world = kept.world
    live = world.deploy(BRIEF)
    for _ in range(3):
        world.containers.programs["migrate"] = lambda _: 1
        assert world.deploy(BRIEF).state is State.FAILED
    kept.house().prune_images()
    with world.store.transaction() as records:
        images = [records.releases.get(one).image for one in (1, 4)]
    assert world.live() == live.id
    assert kept.images() == set(images), "the live release, and the last one that was asked for"


def test_a_release_without_its_image_is_built_again_under_its_number(kept: Kept) -> None:
    world = kept.world
    world.deploy(BRIEF)
    first = world.source.resolve("shop", "/srv/shop.git", "develop")
    for _ in range(4):
        world.deploy(BRIEF)
    kept.house().prune_images()
    again = world.ask(first)
    world.runner().run(again)
    done = world.deployment(again.id)
    assert (done.state, done.release) == (State.SUCCEEDED, 1)
    with world.store.transaction() as records:
        assert records.releases.get(1).image in records.releases.images()


def test_a_release_that_was_just_found_keeps_its_image(kept: Kept) -> None:
    world = kept.world
    world.deploy(BRIEF)
    first = world.source.resolve("shop", "/srv/shop.git", "develop")
    for _ in range(3):
        world.deploy(BRIEF)
    again = world.ask(first)
    world.die("after", Stage.CHECKOUT)
    with pytest.raises(Killed):
        world.runner().run(again)
    kept.house().prune_images()
    done = world.go_on(again.id)
    assert (done.state, done.release) == (State.SUCCEEDED, 1)
    assert world.images.builds == 8, "a release and its tests are two builds each, and the fifth needed none"


def test_what_was_removed_is_reclaimed_however_the_last_round_ended(kept: Kept) -> None:
    world = kept.world
    for _ in range(4):
        world.deploy(BRIEF)
    reclaim = kept.archive.reclaim

    def die() -> None:
        raise Killed

    kept.archive.reclaim = die
    house = kept.house()
    with pytest.raises(Killed):
        house.prune_images()
    kept.archive.reclaim = reclaim
    house.prune_images()
    assert kept.archive.reclaimed == 1
    house.prune_images()
    assert kept.archive.reclaimed == 1, "nothing was removed since"
    kept.house().prune_images()
    assert kept.archive.reclaimed == 2, "nobody knows how the runner before this one ended"


def test_while_somebody_publishes_no_image_is_removed(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("branchline.operations.housekeeping._WAIT", 0.1)
    monkeypatch.setattr("branchline.operations.housekeeping._INSIST", 0.1)
    world = kept.world
    for _ in range(4):
        world.deploy(BRIEF)
    before = kept.images()
    with world.store.alone(PUBLISHING, shared=True), world.store.alone(PUBLISHING, shared=True) as second:
        assert second
        kept.house().prune_images()
        assert set(world.images.published) == before
        assert before <= {name.partition("/")[2] for name in world.images.names}
    kept.house().prune_images()
    assert len(world.images.published) == 2


def test_where_somebody_always_publishes_images_go_all_the_same(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("branchline.operations.housekeeping._WAIT", 0.1)
    world = kept.world
    for _ in range(4):
        world.deploy(BRIEF)
    over = threading.Event()

    def publish() -> None:  # whoever is next begins before the one before ends, as long as there is a next one
        with ExitStack() as before:
            while not over.wait(0.01):
                with ExitStack() as now:
                    if now.enter_context(world.store.alone(PUBLISHING, shared=True)):
                        before.close()
                        before.push(now.pop_all())
                    else:
                        before.close()

    publishing = threading.Thread(target=publish)
    publishing.start()
    try:
        kept.house().prune_images()
    finally:
        over.set()
        publishing.join()
    assert len(world.images.published) == 2


def test_what_a_killed_runner_left_of_an_ended_deployment_goes(kept: Kept) -> None:
    world = kept.world
    asked = world.push(BRIEF)
    world.die("unrecorded", Stage.TEST)
    with pytest.raises(Killed):
        world.runner().run(asked)
    place = Environment(0, "shop", f"test-{asked.id}-1", Tier.NONPROD, slot=0)
    world.containers.ensure_network(place)  # as if it had died a moment earlier
    with world.store.transaction() as records:
        records.deployments.finish(asked.id, State.BROKEN)
    assert list(world.folder.iterdir())
    kept.house().sweep()
    assert list(world.folder.iterdir()) == []
    assert ("shop", place.name) not in world.containers.networks
    assert not any(name.startswith("branchline-") for name in world.images.names)


def test_what_cannot_be_tidied_keeps_nothing_else_lying_about(kept: Kept) -> None:
    world = kept.world
    live = world.deploy(BRIEF)
    old = ServiceSpec("web", "image", ("serve",), port=8000)
    (world.folder / "4711").mkdir()  # a worktree of another database's
    (world.folder / str(live.id)).mkdir()
    world.deploy(BRIEF)
    world.containers.start(world.environment, live.id, [old], FakeInterrupt())

    def refuses(*_words: object) -> None:
        raise PlatformBroke("Docker said: no.", code="docker_refused")

    world.images.remove = refuses
    with pytest.raises(PlatformBroke, match="Docker said"):
        kept.house().sweep()
    assert world.containers.running(world.environment) == [world.live()]
    assert (world.folder / "4711").is_dir()


def test_nothing_of_a_running_deployment_is_swept(kept: Kept) -> None:
    world = kept.world
    live = world.deploy(BRIEF)
    asked = world.push(BRIEF)
    world.die("after", Stage.VERIFY)
    with pytest.raises(Killed):
        world.runner().run(asked)
    kept.house().sweep()
    assert world.containers.running(world.environment) == [live.id, asked.id]
    assert [path.name for path in world.folder.iterdir()] == [str(asked.id)]
    assert world.go_on(asked.id).state is State.SUCCEEDED


def test_containers_of_ended_deployments_that_are_not_live_go(kept: Kept) -> None:
    world = kept.world
    old = world.deploy(BRIEF)
    live = world.deploy(BRIEF)
    left = ServiceSpec("web", "image", ("serve",), port=8000)
    world.containers.start(world.environment, old.id, [left], FakeInterrupt())
    world.containers.start(world.environment, 999, [left], FakeInterrupt())
    kept.house().sweep()
    assert world.containers.running(world.environment) == [live.id, 999], "999 is in no book: not ours to judge"


def test_logs_go_by_count_and_by_age_but_never_that_of_what_is_live(kept: Kept) -> None:
    world = kept.world
    done = [world.deploy(BRIEF) for _ in range(5)]
    kept.house().prune_logs()
    assert ["healthy" in world.log(one.id) for one in done] == [False, False, True, True, True]
    assert "no longer kept" in world.log(done[0].id)
    kept.world.store.prune_logs(datetime.now(UTC) + timedelta(seconds=1), keep=9)
    assert ["healthy" in world.log(one.id) for one in done] == [False, False, False, False, True]
