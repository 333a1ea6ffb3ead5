"""What Containers promises, on the fake and on Docker."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from docker import APIClient

from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import Cancelled, DeploymentFailed, TakenOver
from branchline.domain.manifest import Limits
from branchline.ports import FOLDER, INSIDE, NETWORK, Containers, Instance, InstanceState, ServiceSpec
from tests.fakes.containers import Call, FakeContainers
from tests.fakes.log import FakeInterrupt, FakeLog

_slots = itertools.count(1)


@dataclass
class Place:
    """Containers under test, with an image that holds `app`, and ways to do them harm behind their back."""

    containers: Containers
    image: str
    kill: Callable[[Instance], None]
    remove: Callable[[Instance], None]
    lose_secrets: Callable[..., None]

    def service(self, name: str = "web", verb: str = "idle", replicas: int = 1) -> ServiceSpec:
        return ServiceSpec(name, self.image, ("app", *verb.split()), replicas, 8000)

    def start(self, environment: Environment, deployment: int, *services: ServiceSpec) -> list[Instance]:
        return self.containers.start(environment, deployment, services or [self.service()], FakeInterrupt())

    def run(
        self,
        environment: Environment,
        *command: str,
        name: str = "release",
        log: FakeLog | None = None,
        stop: FakeInterrupt | None = None,
        files: dict[str, str] | None = None,
        **variables: str,
    ) -> int:
        return self.containers.run(
            environment,
            name,
            7,
            self.image,
            command,
            {key: Secret(value) for key, value in variables.items()},
            Limits(),
            log or FakeLog(),
            stop or FakeInterrupt(),
            {key: Secret(value) for key, value in (files or {}).items()},
        )


class Overtaken(FakeInterrupt):
    """Another runner takes over as soon as the log has a line."""

    def __init__(self, log: FakeLog) -> None:
        super().__init__()
        self._log = log

    def check(self) -> None:
        if self._log.lines:
            raise TakenOver("Another runner carries on.")


def _app(call: Call) -> int | None:
    """The same behaviour as container_app.py, in memory."""
    verb, *arguments = call.command[1:]
    match verb:
        case "crash":
            call.say(" ".join(arguments[1:]))
            return int(arguments[0])
        case "say":
            for line in arguments:
                call.say(line)
        case "both":
            call.say("to stdout")
            call.say("to stderr")
        case "tell":
            call.say(repr(call.variables.get(arguments[0])))
        case "open":
            call.say(repr(call.files.get(arguments[0])))
        case "nap":
            call.say(f"token {time.time_ns()}")
            call.sleep(float(arguments[0]))
            call.say("awake")
            return int(arguments[1]) if arguments[1:] else 0
        case _:
            return None
    return 0


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "fake":
        fake = FakeContainers({"app": _app})
        fake.missing_commands.add("nonesuch")
        return Place(fake, "app", fake.crash, fake.lose, fake.lose_secrets)
    docker = request.getfixturevalue("docker_api")
    return Place(
        request.getfixturevalue("docker_containers"),
        request.getfixturevalue("app_image"),
        lambda instance: docker.kill(instance.name),
        lambda instance: docker.remove_container(instance.name, force=True),
        partial(_lose_secrets, docker),
    )


def _lose_secrets(docker: APIClient, instance: Instance, *, folder: bool = True) -> None:
    (mount,) = docker.inspect_container(instance.name)["Mounts"]
    for path in [Path(mount["Source"])] if folder else Path(mount["Source"]).iterdir():
        shutil.rmtree(path) if folder else path.unlink()


@pytest.fixture
def new_environment(place: Place) -> Iterator[Callable[[], Environment]]:
    made: list[Environment] = []

    def make() -> Environment:
        slot = next(_slots)
        made.append(Environment(slot, "shop", f"env{slot}", Tier.NONPROD, slot))
        return made[-1]

    yield make
    for environment in made:
        place.containers.destroy(environment)


@pytest.fixture
def environment(new_environment: Callable[[], Environment]) -> Environment:
    return new_environment()


def _await_state(place: Place, instance: Instance, wanted: Callable[[InstanceState], bool]) -> InstanceState:
    end = time.monotonic() + 20
    while not wanted(state := place.containers.state(instance)):
        assert time.monotonic() < end, state
        time.sleep(0.05)
    return state


def _tokens(log: FakeLog) -> set[str]:
    return {line for line in log.lines if line.startswith("token ")}


# --- services ------------------------------------------------------------------------------------------------


def test_every_replica_of_every_service_is_started(place: Place, environment: Environment) -> None:
    started = place.start(environment, 1, place.service("web", replicas=2), place.service("worker"))

    assert [(one.service, one.replica, one.deployment) for one in started] == [
        ("web", 1, 1),
        ("web", 2, 1),
        ("worker", 1, 1),
    ]
    assert len({one.address for one in started}) == 3
    assert len({one.name for one in started}) == 3
    assert {one.port for one in started} == {8000}
    for instance in started:
        assert place.containers.state(instance) == InstanceState(exists=True, running=True)


def test_starting_again_finds_what_is_there(place: Place, environment: Environment) -> None:
    started = place.start(environment, 1, place.service(replicas=2))

    assert place.start(environment, 1, place.service(replicas=2)) == started
    assert place.containers.instances(environment) == started


def test_starting_again_starts_what_stopped_at_the_same_address(place: Place, environment: Environment) -> None:
    first, second = place.start(environment, 1, place.service(replicas=2))
    place.kill(first)
    _await_state(place, first, lambda state: not state.running)

    assert place.start(environment, 1, place.service(replicas=2)) == [first, second]
    assert place.containers.state(first).running


def test_what_is_missing_is_told_and_put_back_at_the_same_address(place: Place, environment: Environment) -> None:
    wanted = {"web": 2, "worker": 1}
    assert place.containers.missing(environment, 1, wanted) == [NETWORK, "web 1", "web 2", "worker 1"]
    services = [place.service(replicas=2), place.service("worker")]
    started = place.start(environment, 1, *services)
    assert place.containers.missing(environment, 1, wanted) == []
    assert place.containers.missing(environment, 2, {"web": 1}) == ["web 1"]
    place.remove(started[1])
    assert place.containers.missing(environment, 1, wanted) == ["web 2"]
    assert place.start(environment, 1, *services) == started
    assert place.containers.missing(environment, 1, wanted) == []
    assert place.containers.deployments(environment) == {1}


def test_secrets_that_vanish_beneath_containers_are_told_and_found_again(
    place: Place, environment: Environment
) -> None:
    spec = replace(place.service(replicas=2), files={"A": Secret("one"), "B": Secret("two")})
    first, second = started = place.start(environment, 1, spec)
    wanted = {"web": 2}
    assert place.containers.missing(environment, 1, wanted) == []

    place.lose_secrets(first, folder=False)
    assert place.containers.missing(environment, 1, wanted) == [FOLDER]
    place.start(environment, 1, spec)
    assert place.containers.missing(environment, 1, wanted) == []

    place.lose_secrets(first)
    lost = [f"{INSIDE}web 1", f"{INSIDE}web 2"]
    assert place.containers.missing(environment, 1, wanted) == [FOLDER, *lost]
    place.start(environment, 1, spec)
    assert place.containers.missing(environment, 1, wanted) == lost
    place.containers.restart(first, 1)
    assert place.containers.missing(environment, 1, wanted) == lost[1:]
    place.containers.restart(second, 1)
    assert place.containers.missing(environment, 1, wanted) == []
    assert place.containers.instances(environment) == started


def test_a_restart_forgets_crashes_and_makes_nothing_anew(place: Place, environment: Environment) -> None:
    (instance,) = place.start(environment, 1)
    place.kill(instance)
    place.containers.restart(instance, 1)
    assert place.containers.state(instance) == InstanceState(exists=True, running=True)
    place.remove(instance)
    place.containers.restart(instance, 1)
    assert place.containers.instances(environment) == []


def test_deployments_run_side_by_side_and_stop_alone(place: Place, environment: Environment) -> None:
    old = place.start(environment, 1)
    new = place.start(environment, 2)

    assert place.containers.instances(environment) == old + new
    assert place.containers.instances(environment, 2) == new
    assert old[0].address != new[0].address

    place.containers.stop(environment, 1, grace=1)

    assert place.containers.instances(environment) == new
    assert place.containers.state(new[0]).running
    assert place.containers.state(old[0]) == InstanceState(exists=False)


def test_stopping_what_is_gone_is_fine(place: Place, environment: Environment) -> None:
    place.start(environment, 1)
    place.containers.stop(environment, 1, grace=1)
    place.containers.stop(environment, 1, grace=1)
    place.containers.stop(environment, 99, grace=1)

    assert place.containers.instances(environment) == []


def test_a_command_that_crashes_at_once_has_started(place: Place, environment: Environment) -> None:
    (instance,) = place.start(environment, 1, place.service(verb="crash 3 no such table"))

    state = _await_state(place, instance, lambda state: state.exit_code is not None)
    assert not state.running
    assert state.exit_code == 3
    assert not state.out_of_memory
    _await_state(place, instance, lambda state: state.restarts > 0)
    assert place.containers.tail(instance)[-1] == "no such table"


def test_the_tail_is_as_long_as_asked_for(place: Place, environment: Environment) -> None:
    (instance,) = place.start(environment, 1, place.service(verb="say one two three"))
    _await_state(place, instance, lambda state: not state.running)

    assert place.containers.tail(instance, lines=2)[-1] == "three"
    assert len(place.containers.tail(instance, lines=2)) == 2
    assert place.containers.tail(instance, lines=0) == []


def test_what_never_was_does_not_exist(place: Place, environment: Environment) -> None:
    nobody = Instance("nobody", "web", 1, 1, "10.99.99.99", 8000)

    assert place.containers.instances(environment) == []
    assert place.containers.state(nobody) == InstanceState(exists=False)
    assert place.containers.tail(nobody) == []
    assert place.containers.probe_command(nobody, ["app", "say", "x"], 5) == (False, "the container is not running")


def test_a_missing_command_fails_the_deployment_and_leaves_nothing(place: Place, environment: Environment) -> None:
    other = place.start(environment, 1)
    spec = ServiceSpec("api", place.image, ("nonesuch", "--serve"), 1, 8000)

    with pytest.raises(DeploymentFailed, match="nonesuch") as caught:
        place.start(environment, 2, place.service(), spec)

    assert caught.value.code == "command_not_found"
    assert caught.value.hint
    assert place.containers.instances(environment) == other


def test_what_ran_already_stays_where_another_one_can_never_start(place: Place, environment: Environment) -> None:
    running = place.start(environment, 1)
    spec = ServiceSpec("api", place.image, ("nonesuch", "--serve"), 1, 8000)

    with pytest.raises(DeploymentFailed, match="nonesuch"):
        place.start(environment, 1, place.service(), spec)

    assert place.containers.instances(environment) == running
    assert place.containers.state(running[0]).running


def test_more_containers_than_addresses_are_refused(place: Place, environment: Environment) -> None:
    services = [place.service(f"s{number}", replicas=8) for number in range(6)]

    with pytest.raises(DeploymentFailed) as caught:
        place.start(environment, 1, *services)

    assert caught.value.code == "too_many_containers"
    assert place.containers.instances(environment) == []


def test_a_cancelled_start_says_so(place: Place, environment: Environment) -> None:
    stop = FakeInterrupt()
    stop.cancel()

    with pytest.raises(Cancelled):
        place.containers.start(environment, 1, [place.service()], stop)
    assert place.containers.instances(environment) == []


def test_destroying_leaves_nothing_and_spares_others(place: Place, new_environment: Callable[[], Environment]) -> None:
    doomed, spared = new_environment(), new_environment()
    place.start(doomed, 1)
    kept = place.start(spared, 1)

    place.containers.destroy(doomed)
    place.containers.destroy(doomed)

    assert place.containers.instances(doomed) == []
    assert place.containers.instances(spared) == kept
    assert place.containers.state(kept[0]).running


def test_a_network_that_was_made_twice_serves(place: Place, environment: Environment) -> None:
    place.containers.ensure_network(environment)
    place.containers.ensure_network(environment)
    assert [one.service for one in place.start(environment, 1)] == ["web"]


# --- probes by command ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["app", "say", "one", "all is well"], (True, "all is well")),
        (["app", "say"], (True, "")),
        (["app", "crash", "4", "no", "table"], (False, "exited with 4: no table")),
    ],
)
def test_a_probe_command_says_how_it_went(
    place: Place, environment: Environment, command: Sequence[str], expected: tuple[bool, str]
) -> None:
    (instance,) = place.start(environment, 1)

    assert place.containers.probe_command(instance, command, 10) == expected


def test_a_probe_command_that_hangs_is_given_up(place: Place, environment: Environment) -> None:
    (instance,) = place.start(environment, 1)
    began = time.monotonic()

    assert place.containers.probe_command(instance, ["app", "idle"], 0.5) == (False, "no answer within 0.5 s")
    assert time.monotonic() - began < 5


# --- one-off commands ----------------------------------------------------------------------------------------


def test_a_command_runs_once_with_its_output_in_the_log(place: Place, environment: Environment) -> None:
    log = FakeLog()

    assert place.run(environment, "app", "say", "one", "", "three", log=log) == 0
    assert log.lines == ["one", "", "three"]


def test_both_streams_reach_the_log(place: Place, environment: Environment) -> None:
    log = FakeLog()

    assert place.run(environment, "app", "both", log=log) == 0
    assert sorted(log.lines) == ["to stderr", "to stdout"]


def test_a_failing_command_gives_its_status(place: Place, environment: Environment) -> None:
    log = FakeLog()

    assert place.run(environment, "app", "crash", "42", "relation exists", log=log) == 42
    assert log.last == "relation exists"


def test_variables_reach_the_command_as_they_are(place: Place, environment: Environment) -> None:
    log = FakeLog()

    place.run(environment, "app", "tell", "ODD", log=log, ODD="a=b 'c'\n$HOME ü")
    assert log.lines == [repr("a=b 'c'\n$HOME ü")]


def test_secrets_reach_the_command_as_files(place: Place, environment: Environment) -> None:
    log = FakeLog()
    files = {"KEY": "-----BEGIN-----\nü\n", "EMPTY": ""}
    place.run(environment, "app", "open", "KEY", log=log, files=files)
    place.run(environment, "app", "open", "EMPTY", name="other", log=log, files=files)
    place.run(environment, "app", "open", "KEY", name="third", log=log)
    assert log.lines == [repr(files["KEY"]), repr(""), "None"]


def test_a_command_that_ended_is_not_run_again_until_it_is_forgotten(place: Place, environment: Environment) -> None:
    first, repeat, anew = FakeLog(), FakeLog(), FakeLog()
    assert place.run(environment, "app", "nap", "0", log=first) == 0
    assert place.run(environment, "app", "nap", "0", log=repeat) == 0
    for _ in range(2):
        place.containers.forget_run(environment, "release", 7)
    assert place.run(environment, "app", "nap", "0", log=anew) == 0

    assert _tokens(first) == _tokens(repeat)
    assert len(_tokens(first) | _tokens(anew)) == 2


def test_a_missing_command_is_the_projects_fault(place: Place, environment: Environment) -> None:
    with pytest.raises(DeploymentFailed, match="nonesuch") as caught:
        place.run(environment, "nonesuch")
    assert caught.value.code == "command_not_found"


def test_a_cancelled_command_ends_at_once(place: Place, environment: Environment) -> None:
    log, stop = FakeLog(), FakeInterrupt()
    cancelled_at: list[float] = []

    def cancel() -> None:
        while not log.lines:
            time.sleep(0.01)
        cancelled_at.append(time.monotonic())
        stop.cancel()

    threading.Thread(target=cancel).start()
    with pytest.raises(Cancelled):
        place.run(environment, "app", "nap", "60", log=log, stop=stop)
    assert time.monotonic() - cancelled_at[0] < 3

    # The name is free again: nothing was left that a repeat would join.
    again = FakeLog()
    assert place.run(environment, "app", "nap", "0", log=again) == 0
    assert _tokens(again) != _tokens(log)


def test_a_command_that_still_runs_is_joined(place: Place, environment: Environment) -> None:
    first, second = FakeLog(), FakeLog()
    with pytest.raises(TakenOver):
        place.run(environment, "app", "nap", "2", "5", log=first, stop=Overtaken(first))

    assert place.run(environment, "app", "nap", "2", "5", log=second) == 5
    assert _tokens(second) == _tokens(first)
    assert len(_tokens(first)) == 1
    assert second.last == "awake"


def test_a_command_that_ended_unseen_is_not_run_again(place: Place, environment: Environment) -> None:
    first, second, third = FakeLog(), FakeLog(), FakeLog()
    with pytest.raises(TakenOver):
        place.run(environment, "app", "nap", "0.5", "5", log=first, stop=Overtaken(first))
    time.sleep(2)

    assert place.run(environment, "app", "nap", "0.5", "5", log=second) == 5
    assert _tokens(second) == _tokens(first)
    assert second.last == "awake"
    place.containers.forget_run(environment, "release", 7)
    assert place.run(environment, "app", "nap", "0.5", "5", log=third) == 5
    assert _tokens(third) != _tokens(first)


def test_commands_of_other_names_are_others(place: Place, environment: Environment) -> None:
    first, second = FakeLog(), FakeLog()
    with pytest.raises(TakenOver):
        place.run(environment, "app", "nap", "60", log=first, stop=Overtaken(first))

    assert place.run(environment, "app", "nap", "0", name="test", log=second) == 0
    assert _tokens(first) != _tokens(second)


def test_one_off_commands_are_no_instances_but_stop_with_their_deployment(
    place: Place, environment: Environment
) -> None:
    first, second = FakeLog(), FakeLog()
    with pytest.raises(TakenOver):
        place.run(environment, "app", "nap", "60", log=first, stop=Overtaken(first))
    assert place.containers.instances(environment) == []

    place.containers.stop(environment, 7, grace=1)

    assert place.run(environment, "app", "nap", "0", log=second) == 0
    assert _tokens(first) != _tokens(second)
