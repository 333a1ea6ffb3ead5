"""What is removed by hand from a live environment is put back, or it is said why not; over fakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.deployment import State, Trigger
from branchline.domain.environment import Destination, Tier
from branchline.domain.errors import PlatformBroke, Unreachable
from branchline.domain.pipeline import Stage, StageState
from branchline.operations.chores import Chores
from branchline.operations.health import Health
from branchline.operations.mending import Mending
from branchline.ports import Instance, InstanceState
from tests.fakes.containers import Call
from tests.unit.test_deploy import HOST, MANIFEST, REPOSITORY, Killed, World

BRIEF = MANIFEST.replace("window: 0.3s", "window: 10ms")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def mending_of(world: World, starting: Callable[[], bool]) -> Mending:
    health = Health(world.containers, world.probes)
    launch, tier = world.runner().launch, Tier.NONPROD
    return Mending(
        world.store, launch, world.containers, world.proxy, health, tier=tier, log_limit=100_000, starting=starting
    )


@pytest.fixture
def mending(world: World) -> Mending:
    return mending_of(world, lambda: False)


def events(world: World) -> list[AuditEvent]:
    kinds = {Kind.ENVIRONMENT_MENDED, Kind.ENVIRONMENT_TROUBLED}
    return [event for _, event in world.store.tables.events if event.kind in kinds]


def trouble(world: World) -> str:
    with world.store.transaction() as records:
        return records.environments.get("shop", "develop").trouble


def test_where_nothing_is_missing_nothing_is_done(world: World, mending: Mending) -> None:
    mending.mend_all()
    world.deploy(BRIEF)
    before = len(world.proxy.history)
    mending.mend_all()
    assert (events(world), len(world.proxy.history), trouble(world)) == ([], before, "")


def test_what_the_stack_is_about_to_start_is_left_to_it(world: World) -> None:
    done = world.deploy(BRIEF)
    starting = True
    mending = mending_of(world, lambda: starting)
    (gone, *_rest) = world.containers.containers
    del world.containers.containers[gone]
    mending.mend_all()
    assert (events(world), gone in world.containers.containers) == ([], False)
    starting = False
    mending.mend_all()
    assert [event.deployment for event in events(world)] == [done.id]


def test_a_removed_container_is_put_back(world: World, mending: Mending) -> None:
    live = world.deploy(BRIEF)
    lost, *_ = world.containers.instances(world.environment)
    world.containers.lose(lost)
    mending.mend_all()
    assert len(world.containers.instances(world.environment, live.id)) == 3
    assert world.serving() == {live.id}
    assert [(one.kind, one.deployment, one.detail) for one in events(world)] == [
        (Kind.ENVIRONMENT_MENDED, live.id, {"put_back": [f"{lost.service} {lost.replica}"]})
    ]
    assert "Put back: " in world.log(live.id)
    mending.mend_all()
    assert len(events(world)) == 1


def test_everything_is_put_back_with_its_network_and_secrets(world: World, mending: Mending) -> None:
    live = world.deploy(BRIEF)
    before = {one.instance.name: one.spec.variables for one in world.containers.containers.values()}
    world.containers.destroy(world.environment)
    mending.mend_all()
    assert {one.instance.name: one.spec.variables for one in world.containers.containers.values()} == before
    assert world.serving() == {live.id}


def test_routes_are_put_back(world: World, mending: Mending) -> None:
    live = world.deploy(BRIEF)
    world.proxy.live.clear()
    mending.mend_all()
    assert world.serving() == {live.id}
    assert events(world)[0].detail == {"put_back": ["the routes"]}


def test_routes_are_put_back_after_a_newer_deployment_was_undone(world: World, mending: Mending) -> None:
    live = world.deploy(BRIEF)
    world.probes.answer("web", (True, "HTTP 200"), (True, "HTTP 200"), (False, "HTTP 500"))
    assert world.deploy(MANIFEST).state is State.UNDONE
    world.probes.answer("web", (True, "HTTP 200"))
    world.proxy.live.clear()
    mending.mend_all()
    assert world.serving() == {live.id} == {world.live()}


def test_what_cannot_be_put_back_is_said_once_and_taken_back_when_it_can(world: World, mending: Mending) -> None:
    world.deploy(BRIEF)
    image = next(iter(world.images.published))
    gone = world.images.published.pop(image)
    world.images.local.clear()
    world.images.names.clear()
    world.containers.lose(world.containers.instances(world.environment)[0])
    for _ in range(3):
        mending.mend_all()
    assert "web 1 is missing, and cannot be put back" in trouble(world).lower()
    assert [one.kind for one in events(world)] == [Kind.ENVIRONMENT_TROUBLED]
    world.images.published[image] = gone
    mending.mend_all()
    assert trouble(world) == ""
    assert [one.kind for one in events(world)] == [Kind.ENVIRONMENT_TROUBLED, Kind.ENVIRONMENT_MENDED]


def test_trouble_tells_no_secrets(world: World, mending: Mending) -> None:
    world.configs.put("shop", "develop", {"TOKEN": "hush-hush-secret"})
    live = world.deploy(BRIEF)
    lost = world.containers.instances(world.environment)[0]
    world.containers.lose(lost)

    def crashes(call: Call) -> int:
        call.say(f"my token is {call.variables['TOKEN']}")
        return 3

    world.containers.programs["serve"] = crashes
    world.probes.answer("web", (False, "connection refused"))
    mending.mend_all()
    assert "cannot be put back" in trouble(world)
    assert "hush-hush-secret" not in trouble(world) + world.log(live.id)


def test_trouble_ends_with_the_next_release(world: World, mending: Mending) -> None:
    world.deploy(BRIEF)
    with world.store.transaction() as records:
        records.environments.note_trouble(world.environment, "Web 1 is missing.")
    live = world.deploy(BRIEF)
    assert (trouble(world), world.live()) == ("", live.id)
    mending.mend_all()
    assert events(world) == []


FILES = BRIEF + "secrets: files\n"


def test_secrets_that_were_removed_are_written_again(world: World, mending: Mending) -> None:
    live = world.deploy(FILES)
    world.containers.lose_secrets(world.containers.instances(world.environment)[0], folder=False)
    mending.mend_all()
    assert world.containers.missing(world.environment, live.id, {"web": 2, "worker": 1}) == []
    assert [one.detail for one in events(world)] == [{"put_back": ["the folder of secrets"]}]
    assert not [call for call in world.containers.calls if call[0] == "restart"], "they see the files again as they are"


def test_containers_that_lost_their_secrets_start_anew_one_after_the_other(world: World, mending: Mending) -> None:
    live = world.deploy(FILES)
    before = world.containers.instances(world.environment)
    reached: list[int] = []
    restart = world.containers.restart

    def looked_at(instance: Instance, grace: float) -> None:
        reached.append(len(world.proxy.targets(HOST)))
        assert f"{instance.address}:{instance.port}" not in world.proxy.targets(HOST)
        restart(instance, grace)

    world.containers.restart = looked_at
    world.containers.lose_secrets(before[0])
    for looks in range(1, 6):
        mending.mend_all()
        assert len(world.proxy.targets(HOST)) == 2
        assert len(reached) == min(looks - 1, 3)
    assert reached == [1, 1, 2], "of two webs there is always one, and nobody is led to the worker"
    assert [one.detail["put_back"] for one in events(world)] == [
        ["the folder of secrets"],
        ["the folder of secrets in web 1"],
        ["the folder of secrets in web 2"],
        ["the folder of secrets in worker 1"],
    ]
    assert world.containers.instances(world.environment) == before
    assert (world.serving(), trouble(world)) == ({live.id}, "")


def test_where_one_does_not_come_up_again_the_others_run_on(world: World, mending: Mending) -> None:
    world.deploy(FILES)
    web, *_ = world.containers.instances(world.environment)
    world.containers.lose_secrets(web)
    mending.mend_all()
    world.containers.programs["serve"] = lambda _: 3
    for _ in range(3):
        mending.mend_all()
    assert [call[1] for call in world.containers.calls if call[0] == "restart"] == [web.name]
    assert len(world.proxy.targets(HOST)) == 1, "nobody is led to it"
    said = "The folder of secrets in web 2 is missing, and cannot be put back: web 1 is not well (it ended)."
    assert trouble(world).startswith(said)
    mending_of(world, lambda: False).mend_all()
    assert [call[1] for call in world.containers.calls if call[0] == "restart"] == [web.name], "it remembers nothing"
    assert len(world.proxy.targets(HOST)) == 1
    del world.containers.programs["serve"]
    world.containers.restart(web, 0)
    for _ in range(2):
        mending.mend_all()
    assert (trouble(world), len(world.proxy.targets(HOST))) == ("", 2)


def test_the_last_one_that_does_not_come_up_stays_a_trouble(world: World, mending: Mending) -> None:
    world.deploy(FILES)
    first, second, *_ = world.containers.instances(world.environment)
    world.containers.lose_secrets(first)
    for _ in range(2):
        mending.mend_all()
    assert len(world.proxy.targets(HOST)) == 2
    world.containers.programs["serve"] = lambda _: 3
    for _ in range(3):
        mending.mend_all()
        assert world.proxy.targets(HOST) == (f"{first.address}:{first.port}",)
        assert "web 2" in trouble(world)
    world.containers.programs.clear()
    world.containers.restart(second, 0)
    for _ in range(3):
        mending.mend_all()
    assert (trouble(world), len(world.proxy.targets(HOST))) == ("", 2)


def test_the_only_one_that_does_not_come_up_stays_a_trouble(world: World, mending: Mending) -> None:
    world.deploy(FILES.replace("replicas: 2", "replicas: 1"))
    (web,) = [one for one in world.containers.instances(world.environment) if one.service == "web"]
    world.containers.lose_secrets(web)
    mending.mend_all()
    world.containers.programs["serve"] = lambda _: 3
    for _ in range(3):
        mending.mend_all()
        assert "web 1" in trouble(world)
    world.containers.programs.clear()
    world.containers.restart(web, 0)
    for _ in range(3):
        mending.mend_all()
    assert trouble(world) == ""


def test_nothing_is_mended_while_somebody_deploys(world: World, mending: Mending) -> None:
    world.deploy(BRIEF)
    asked = world.push(BRIEF)
    world.die("after", Stage.START)
    with pytest.raises(Killed):
        world.runner().run(asked)
    world.containers.lose(world.containers.instances(world.environment)[0])
    mending.mend_all()
    assert events(world) == []


def test_what_is_in_the_way_of_one_environment_is_said_of_that_one(world: World, mending: Mending) -> None:
    world.deploy(BRIEF)
    world.containers.broken = PlatformBroke("The network is somebody else's.", code="name_taken", hint="Remove it.")
    mending.mend_all()
    assert trouble(world) == "The network is somebody else's. Remove it."
    world.containers.broken = None
    mending.mend_all()
    assert trouble(world) == ""


def test_while_docker_is_away_nothing_is_said_of_environments(world: World, mending: Mending) -> None:
    world.deploy(BRIEF)
    world.containers.broken = Unreachable("Docker cannot be reached.", code="docker_unreachable")
    said: list[tuple[str, str]] = []
    Chores(world.store, "nonprod", [], lambda *words: said.append(words)).do(mending.chore())
    world.containers.broken = None
    assert said == [("mend", "Docker cannot be reached.")]
    assert (events(world), trouble(world)) == ([], "")


def test_a_newer_commit_that_failed_takes_no_hostname_from_what_is_live(world: World, mending: Mending) -> None:
    named = BRIEF.replace("{on: {branch: develop}}", "{on: {branch: develop}, domains: [shop.test]}")
    live = world.deploy(named)
    with world.store.transaction() as records:  # as a request for a commit without the domain does, which then fails
        records.environments.claim_hostnames(world.environment, [HOST, "new.test"])
    mending.mend_all()
    assert (events(world), world.proxy.live[world.environment.key].hostnames) == ([], (HOST, "shop.test"))
    world.proxy.live.clear()
    mending.mend_all()
    assert world.serving() == {live.id}
    assert set(world.proxy.live[world.environment.key].hostnames) == {HOST, "shop.test"}


def test_a_hostname_that_somebody_else_has_by_now_is_left_to_them(world: World, mending: Mending) -> None:
    named = BRIEF.replace("{on: {branch: develop}}", "{on: {branch: develop}, domains: [shop.test]}")
    live = world.deploy(named)
    with world.store.transaction() as records:
        records.environments.claim_hostnames(world.environment, [HOST])
        project = records.projects.get("shop")
        other = records.environments.ensure(project, Destination("staging", Tier.NONPROD))
        records.environments.claim_hostnames(other, ["shop.test"])
    world.proxy.live.clear()
    mending.mend_all()
    assert world.serving() == {live.id}
    assert world.proxy.live[world.environment.key].hostnames == (HOST,)
    before = events(world)
    mending.mend_all()
    assert events(world) == before


def test_a_container_that_crashed_once_keeps_nothing_from_being_mended(world: World, mending: Mending) -> None:
    live = world.deploy(BRIEF)
    web, _, worker = world.containers.instances(world.environment)
    crashed = InstanceState(exists=True, running=True, restarts=1)  # and Docker has started it again
    world.containers.containers[worker.name].state = crashed
    world.containers.lose(web)
    mending.mend_all()
    assert (trouble(world), [one.kind for one in events(world)]) == ("", [Kind.ENVIRONMENT_MENDED])
    world.proxy.live.clear()
    mending.mend_all()
    assert world.serving() == {live.id}


def test_routes_need_neither_the_image_nor_the_config(world: World, mending: Mending) -> None:
    live = world.deploy(BRIEF)
    world.images.lose_all()
    world.proxy.live.clear()
    mending.mend_all()
    assert (world.serving(), trouble(world)) == ({live.id}, "")


def test_users_are_led_to_what_is_left(world: World, mending: Mending) -> None:
    live = world.deploy(BRIEF)
    world.images.lose_all()
    world.proxy.live.clear()
    world.containers.lose(world.containers.instances(world.environment)[0])
    mending.mend_all()
    assert world.serving() == {live.id}
    assert len(world.proxy.targets(HOST)) == 1
    assert trouble(world).startswith("Web 1 is missing, and cannot be put back")


def test_what_a_newer_deployment_drained_meanwhile_is_no_trouble(world: World, mending: Mending) -> None:
    world.deploy(BRIEF)
    world.containers.lose(world.containers.instances(world.environment)[0])
    newer: list[int] = []
    start = world.containers.start

    def then_somebody_deploys(*words) -> list[Instance]:
        world.containers.start = start
        started = start(*words)
        newer.append(world.deploy(BRIEF).id)
        return started

    world.containers.start = then_somebody_deploys
    mending.mend_all()
    assert (world.live(), world.serving()) == (newer[0], {newer[0]})
    mending.mend_all()
    assert trouble(world) == ""
    assert Kind.ENVIRONMENT_TROUBLED not in [one.kind for one in events(world)]


def test_one_environments_fault_keeps_no_other_waiting(world: World, mending: Mending) -> None:
    live = world.deploy(BRIEF)
    with world.store.transaction() as records:  # live by a story whose manifest nobody understands any more
        project = records.projects.get("shop")
        first = records.environments.ensure(project, Destination("a-first", Tier.NONPROD))
        revision = world.source.resolve("shop", REPOSITORY, "develop")
        strange = records.deployments.add(first, revision, actor="ada", trigger=Trigger.CLI, reason="")
        for stage, output in ((Stage.CHECKOUT, {"manifest": {"strange": 1}}), (Stage.PREPARE, {"hostnames": []})):
            records.deployments.begin_stage(strange.id, stage)
            records.deployments.end_stage(strange.id, stage, StageState.PASSED, "", {"output": output})
        records.deployments.finish(strange.id, State.SUCCEEDED)
        records.environments.set_live(first, strange.id)
    world.proxy.live.clear()
    said: list[tuple[str, str]] = []
    Chores(world.store, "nonprod", [], lambda *words: said.append(words)).do(mending.chore())
    assert world.serving() == {live.id}
    assert [chore for chore, _ in said] == ["mend"], "the fault is told all the same"


def test_healthy_containers_stay_where_one_cannot_be_put_back(world: World, mending: Mending) -> None:
    live = world.deploy(BRIEF)
    world.containers.lose(world.containers.instances(world.environment)[0])
    world.containers.missing_commands.add("serve")
    mending.mend_all()
    assert world.serving() == {live.id}
    assert len(world.containers.instances(world.environment, live.id)) == 2
    assert "cannot be put back" in trouble(world)


def test_the_log_does_not_grow_with_every_look(world: World, mending: Mending) -> None:
    live = world.deploy(BRIEF)
    world.images.lose_all()
    world.containers.lose(world.containers.instances(world.environment)[0])
    mending.mend_all()
    once = world.log(live.id)
    mending.mend_all()
    assert world.log(live.id) == once
