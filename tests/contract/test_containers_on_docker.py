"""What only Docker can show: walls, limits, addresses, signals, and output of any size and shape."""

from __future__ import annotations

import itertools
import json
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
from docker import APIClient
from docker.types import IPAMConfig, IPAMPool

from branchline.adapters.containers import DockerContainers
from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import Cancelled, DeploymentFailed, PlatformBroke, TakenOver
from branchline.domain.manifest import Limits
from branchline.layout import Layout
from branchline.ports import FOLDER, INSIDE, Instance, InstanceState, ServiceSpec
from tests.contract.conftest import BuildImage
from tests.fakes.log import FakeInterrupt, FakeLog

pytestmark = pytest.mark.docker

_slots = itertools.count(200)
MEGABYTE = 1024 * 1024


class CountingLog(FakeLog):
    """Counts lines instead of keeping them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.in_order = 0

    def write(self, line: str) -> None:
        self.in_order += line.startswith(f"{self.count:09} x")
        self.count += 1
        self.lines = [line]


@pytest.fixture
def new_environment(docker_containers: DockerContainers) -> Iterator[Callable[[], Environment]]:
    made: list[Environment] = []

    def make() -> Environment:
        slot = next(_slots)
        made.append(Environment(slot, "shop", f"env{slot}", Tier.NONPROD, slot))
        return made[-1]

    yield make
    for environment in made:
        docker_containers.destroy(environment)


@pytest.fixture
def environment(new_environment: Callable[[], Environment]) -> Environment:
    return new_environment()


@pytest.fixture
def start(docker_containers: DockerContainers, app_image: str) -> Callable[..., list[Instance]]:
    def started(environment: Environment, deployment: int, *services: ServiceSpec) -> list[Instance]:
        return docker_containers.start(environment, deployment, services, FakeInterrupt())

    return started


@pytest.fixture
def run(docker_containers: DockerContainers, app_image: str) -> Callable[..., int]:
    def ran(
        environment: Environment,
        *command: str,
        log: FakeLog,
        stop: FakeInterrupt | None = None,
        limits: Limits | None = None,
        image: str = app_image,
    ) -> int:
        return docker_containers.run(
            environment, "release", 7, image, command, {}, limits or Limits(), log, stop or FakeInterrupt()
        )

    return ran


@pytest.fixture
def web(app_image: str) -> ServiceSpec:
    return ServiceSpec("web", app_image, ("app", "serve"), 1, 8000)


def _get(instance: Instance, path: str = "/") -> str:
    """What a service answers, once it is up."""
    end = time.monotonic() + 20
    while True:
        try:
            with urlopen(f"http://{instance.address}:{instance.port}{path}", timeout=10) as answer:
                return str(answer.read().decode().strip())
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)


def _wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def _told(spec: ServiceSpec, answer: str) -> ServiceSpec:
    return replace(spec, variables={"ANSWER": Secret(answer)})


# --- walls ---------------------------------------------------------------------------------------------------


def test_environments_do_not_reach_each_other(
    docker_containers: DockerContainers,
    new_environment: Callable[[], Environment],
    start: Callable[..., list[Instance]],
    web: ServiceSpec,
) -> None:
    here, there = new_environment(), new_environment()
    (mine,) = start(here, 1, web)
    (theirs,) = start(there, 1, web)
    assert _get(mine) == _get(theirs) == "hello"

    def reach(target: Instance) -> tuple[bool, str]:
        return docker_containers.probe_command(mine, ["app", "reach", target.address, "8000"], 15)

    assert reach(mine) == (True, "hello")
    reached, said = reach(theirs)
    assert not reached
    assert "not reached" in said


def test_services_reach_those_of_their_own_deployment_by_name(
    docker_containers: DockerContainers,
    environment: Environment,
    start: Callable[..., list[Instance]],
    web: ServiceSpec,
) -> None:
    deployments = {}
    for number, answer in ((1, "old"), (2, "new")):
        api = _told(replace(web, name="api", replicas=2), answer)
        deployments[number] = start(environment, number, web, api)
    for instances in deployments.values():
        for instance in instances:
            _get(instance)

    for number, answer in ((1, "old"), (2, "new")):
        caller = next(one for one in deployments[number] if one.service == "web")
        assert docker_containers.probe_command(caller, ["app", "reach", "api", "8000"], 15) == (True, answer)
        lookup = "import socket; print(sorted({found[4][0] for found in socket.getaddrinfo('api', 8000)}))"
        addresses = sorted(one.address for one in deployments[number] if one.service == "api")
        assert docker_containers.probe_command(caller, ["python3", "-c", lookup], 15) == (True, str(addresses))


def test_containers_reach_the_platforms_gateway(
    docker_containers: DockerContainers,
    docker_layout: Layout,
    docker_api: APIClient,
    environment: Environment,
    run: Callable[..., int],
) -> None:
    platform = Environment(0, "platform", "itself", Tier.NONPROD, 0)
    docker_containers.ensure_network(platform)
    try:
        network = docker_api.inspect_network(f"{docker_layout.instance}-{platform.key}")
        gateway = network["IPAM"]["Config"][0]["Gateway"]
        log = FakeLog()
        assert run(environment, "app", "reach", gateway, "9", log=log) == 1
        assert "refused" in log.last  # somebody is there, who says no: a wall would stay silent
    finally:
        docker_containers.destroy(platform)


def test_privileges_cannot_grow(environment: Environment, run: Callable[..., int]) -> None:
    log = FakeLog()
    run(environment, "app", "walls", log=log)

    assert "NoNewPrivs:\t1" in log.last
    capabilities = int(log.last.split("CapEff:")[1].split()[0], 16)
    net_raw, net_admin, chown = 1 << 13, 1 << 12, 1 << 0
    assert not capabilities & (net_raw | net_admin)
    assert capabilities & chown


def test_secrets_appear_in_the_environment_only(
    docker_api: APIClient,
    environment: Environment,
    start: Callable[..., list[Instance]],
    web: ServiceSpec,
) -> None:
    (instance,) = start(environment, 1, _told(web, "hunter-two-42"))
    about = docker_api.inspect_container(instance.name)
    variables = about["Config"].pop("Env")

    assert "ANSWER=hunter-two-42" in variables
    assert "hunter-two-42" not in json.dumps(about)
    listed = next(one for one in docker_api.containers() if one["Id"] == about["Id"])
    assert "hunter-two-42" not in json.dumps(listed)
    assert not [one for one in variables if "proxy" in one.lower()]


def test_secrets_as_files_are_in_memory_and_gone_with_the_deployment(
    docker_api: APIClient,
    docker_containers: DockerContainers,
    environment: Environment,
    start: Callable[..., list[Instance]],
    web: ServiceSpec,
) -> None:
    spec = replace(web, files={"ANSWER": Secret("hunter-two-42")})
    (instance,) = start(environment, 1, spec)
    about = docker_api.inspect_container(instance.name)
    assert "hunter-two-42" not in json.dumps(about)
    (mount,) = about["Mounts"]
    assert (mount["Destination"], mount["RW"]) == ("/run/secrets", False)
    folder = Path(mount["Source"])
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True).stdout
    assert kind == "tmpfs\n"
    assert [one.stat().st_mode & 0o777 for one in (folder.parents[2], folder / "ANSWER")] == [0o700, 0o444]
    read = ["python3", "-c", "import os; os.setuid(65534); print(open('/run/secrets/ANSWER').read())"]
    assert docker_containers.probe_command(instance, read, 10) == (True, "hunter-two-42")
    written = ["python3", "-c", "open('/run/secrets/ANSWER', 'w')"]
    assert not docker_containers.probe_command(instance, written, 10)[0]

    # The machine was restarted: what was in memory is gone, and is there again once the container is.
    docker_api.stop(instance.name, timeout=0)
    shutil.rmtree(folder)
    start(environment, 1, spec)
    assert (folder / "ANSWER").read_text() == "hunter-two-42"
    assert docker_containers.probe_command(instance, read, 10) == (True, "hunter-two-42")

    # Somebody emptied the memory beneath what runs: the container looks into what is no more, until it is started anew.
    shutil.rmtree(folder)
    start(environment, 1, spec)
    assert docker_containers.missing(environment, 1, {"web": 1}) == [f"{INSIDE}web 1"]
    assert not docker_containers.probe_command(instance, read, 10)[0]
    docker_containers.restart(instance, 0)
    assert docker_containers.probe_command(instance, read, 10) == (True, "hunter-two-42")
    (folder / "ANSWER").unlink()
    assert docker_containers.missing(environment, 1, {"web": 1}) == [FOLDER]

    docker_containers.stop(environment, 1, 0)
    assert not folder.parent.exists()


def test_services_and_commands_find_their_own_secrets_and_no_others(
    docker_api: APIClient,
    docker_containers: DockerContainers,
    environment: Environment,
    start: Callable[..., list[Instance]],
    web: ServiceSpec,
) -> None:
    given: dict[str, dict[str, Secret] | None] = {
        "web": {"A": Secret("1"), "LEVEL": Secret("info")},
        "other": {"A": Secret("2")},
        "none": {},
        "without": None,
    }
    look = ("python3", "-c", "import os; print(sorted(os.listdir('/run/secrets')))")
    log = FakeLog()
    files = {"A": Secret("3"), "LEVEL": Secret("info")}
    docker_containers.run(environment, "release", 1, web.image, look, {}, Limits(), log, FakeInterrupt(), files)
    assert log.last == "['A', 'LEVEL']"
    started = start(environment, 1, *(replace(web, name=name, files=files) for name, files in given.items()))
    found = {one.service: docker_containers.probe_command(one, look, 10)[1] for one in started}
    assert "No such file" in found.pop("without")
    assert found == {"web": "['A', 'LEVEL']", "other": "['A']", "none": "[]"}
    value = ("python3", "-c", "print(open('/run/secrets/A').read())")
    with_it = {one.service: one for one in started if one.service in {"web", "other"}}
    said = {name: docker_containers.probe_command(one, value, 10)[1] for name, one in with_it.items()}
    assert said == {"web": "1", "other": "2"}
    (mount,) = docker_api.inspect_container(with_it["web"].name)["Mounts"]
    folder = Path(mount["Source"]).parent
    assert {path.name for path in folder.iterdir() if path.is_dir()} > {"service-web", "command-release"}
    docker_containers.forget_run(environment, "release", 1)
    assert not (folder / "command-release").exists()


def test_a_container_whose_secrets_lie_elsewhere_by_now_is_made_anew_when_it_has_to_start(
    docker_api: APIClient,
    docker_containers: DockerContainers,
    environment: Environment,
    start: Callable[..., list[Instance]],
    web: ServiceSpec,
) -> None:
    (before,) = start(environment, 1, web)
    spec = replace(web, files={"ANSWER": Secret("hunter-two-42")})
    made = docker_api.inspect_container(before.name)["Id"]
    assert start(environment, 1, spec) == [before]
    assert docker_api.inspect_container(before.name)["Id"] == made, "what serves is left alone"
    docker_api.kill(before.name)
    assert start(environment, 1, spec) == [before]
    read = ["python3", "-c", "print(open('/run/secrets/ANSWER').read())"]
    assert docker_containers.probe_command(before, read, 10) == (True, "hunter-two-42")


def test_no_port_is_published_logs_are_bounded_and_crashes_mended(
    docker_api: APIClient, environment: Environment, start: Callable[..., list[Instance]], web: ServiceSpec
) -> None:
    (instance,) = start(environment, 1, web)
    host = docker_api.inspect_container(instance.name)["HostConfig"]

    assert not host["PortBindings"]
    assert host["RestartPolicy"]["Name"] == "always"
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "2", "max-size": "10m"}}


# --- limits --------------------------------------------------------------------------------------------------


def test_limits_are_set(
    docker_api: APIClient, environment: Environment, start: Callable[..., list[Instance]], web: ServiceSpec
) -> None:
    limited = replace(web, limits=Limits(cpus=0.25, memory=64 * MEGABYTE, pids=50))
    (instance,) = start(environment, 1, limited)
    host = docker_api.inspect_container(instance.name)["HostConfig"]

    assert host["NanoCpus"] == 250_000_000
    assert host["Memory"] == host["MemorySwap"] == 64 * MEGABYTE
    assert host["PidsLimit"] == 50


def test_more_processors_than_there_are_mean_all_of_them(
    docker_api: APIClient, environment: Environment, start: Callable[..., list[Instance]], web: ServiceSpec
) -> None:
    (instance,) = start(environment, 1, replace(web, limits=Limits(cpus=512)))

    host = docker_api.inspect_container(instance.name)["HostConfig"]
    assert host["NanoCpus"] == docker_api.info()["NCPU"] * 1_000_000_000


def test_eating_too_much_is_told_from_crashing(
    docker_containers: DockerContainers,
    environment: Environment,
    start: Callable[..., list[Instance]],
    web: ServiceSpec,
) -> None:
    greedy = replace(web, command=("app", "eat", "200"), limits=Limits(memory=48 * MEGABYTE))
    (instance,) = start(environment, 1, greedy)

    _wait_for(lambda: docker_containers.state(instance).out_of_memory)
    _wait_for(lambda: docker_containers.state(instance).restarts > 0)


def test_a_command_that_eats_too_much_is_told_so(environment: Environment, run: Callable[..., int]) -> None:
    log = FakeLog()

    assert run(environment, "app", "eat", "200", log=log, limits=Limits(memory=48 * MEGABYTE)) == 137
    assert log.last == "The command release used more memory than it may, and was ended."


# --- addresses and networks ----------------------------------------------------------------------------------


def test_addresses_survive_a_restart(
    docker_api: APIClient,
    docker_containers: DockerContainers,
    environment: Environment,
    start: Callable[..., list[Instance]],
    web: ServiceSpec,
) -> None:
    before = start(environment, 1, replace(web, replicas=2))
    for instance in reversed(before):  # in the other order: Docker by itself would swap them
        docker_api.stop(instance.name, timeout=5)
    for instance in reversed(before):
        docker_api.start(instance.name)

    assert docker_containers.instances(environment) == before
    for instance in before:
        networks = docker_api.inspect_container(instance.name)["NetworkSettings"]["Networks"]
        assert [one["IPAddress"] for one in networks.values()] == [instance.address]
        assert _get(instance) == "hello"


def test_the_address_of_a_stopped_container_is_kept_for_it(
    docker_api: APIClient, environment: Environment, start: Callable[..., list[Instance]], web: ServiceSpec
) -> None:
    (old,) = start(environment, 1, web)
    docker_api.stop(old.name, timeout=5)
    (new,) = start(environment, 2, web)

    assert new.address != old.address
    assert start(environment, 1, web) == [old]
    assert _get(old) == _get(new) == "hello"


def test_one_off_commands_take_no_service_address(
    docker_containers: DockerContainers,
    environment: Environment,
    start: Callable[..., list[Instance]],
    run: Callable[..., int],
    web: ServiceSpec,
    docker_api: APIClient,
) -> None:
    (instance,) = start(environment, 1, web)
    docker_api.stop(instance.name, timeout=5)
    log = FakeLog()
    show = "import socket; print(socket.gethostbyname(socket.gethostname()))"
    assert run(environment, "python3", "-c", show, log=log) == 0

    assert int(log.last.rpartition(".")[2]) % 64 >= 48
    assert start(environment, 1, web) == [instance]


def test_a_start_that_was_interrupted_keeps_the_addresses_it_told(
    docker_api: APIClient, environment: Environment, start: Callable[..., list[Instance]], web: ServiceSpec
) -> None:
    start(environment, 1, web)
    services = (web, replace(web, name="api", replicas=2))
    first = start(environment, 2, *services)
    # As if the runner had been killed before the last one, and the old release, below it in addresses, had gone since.
    docker_api.remove_container(first[1].name, force=True)
    for instance in [one for one in docker_api.containers(all=True) if "-d1-" in one["Names"][0]]:
        if instance["Labels"].get("branchline.environment") == environment.name:
            docker_api.remove_container(instance["Id"], force=True)

    assert start(environment, 2, *services) == first


def test_an_address_that_docker_gives_away_is_avoided(
    docker_api: APIClient,
    docker_layout: Layout,
    environment: Environment,
    start: Callable[..., list[Instance]],
    web: ServiceSpec,
) -> None:
    subnet = docker_layout.network(environment.slot)
    pool = IPAMPool(
        subnet=str(subnet), gateway=str(subnet[1]), iprange=f"{subnet[48]}/28", aux_addresses={"taken": str(subnet[2])}
    )
    labels = {"instance": docker_layout.instance, "project": environment.project, "environment": environment.name}
    docker_api.create_network(
        f"{docker_layout.instance}-{environment.key}",
        driver="bridge",
        ipam=IPAMConfig(pool_configs=[pool]),
        labels={f"branchline.{key}": value for key, value in labels.items()},
    )

    instances = start(environment, 1, replace(web, replicas=2))

    assert [one.address for one in instances] == [str(subnet[3]), str(subnet[4])]
    assert [_get(one) for one in instances] == ["hello", "hello"]


def test_a_network_is_made_once_however_many_ask(
    docker_api: APIClient, docker_layout: Layout, docker_containers: DockerContainers, environment: Environment
) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(docker_containers.ensure_network, [environment] * 4))

    name = f"{docker_layout.instance}-{environment.key}"
    (network,) = [one for one in docker_api.networks() if one["Name"] == name]
    assert network["IPAM"]["Config"][0]["Subnet"] == str(docker_layout.network(environment.slot))


def test_a_network_of_another_slot_is_replaced_unless_it_is_used(
    docker_containers: DockerContainers,
    environment: Environment,
    start: Callable[..., list[Instance]],
    web: ServiceSpec,
) -> None:
    docker_containers.ensure_network(environment)
    moved = replace(environment, slot=next(_slots))
    (instance,) = start(moved, 1, web)
    assert _get(instance) == "hello"

    with pytest.raises(PlatformBroke) as caught:
        docker_containers.ensure_network(environment)
    assert caught.value.code == "network_changed"


def test_a_stranger_in_our_addresses_is_named(
    docker_api: APIClient, docker_layout: Layout, docker_containers: DockerContainers, environment: Environment
) -> None:
    pool = IPAMPool(subnet=str(docker_layout.network(environment.slot)))
    stranger = f"{docker_layout.instance}-stranger"
    docker_api.create_network(stranger, ipam=IPAMConfig(pool_configs=[pool]))
    try:
        with pytest.raises(PlatformBroke) as caught:
            docker_containers.ensure_network(environment)
    finally:
        docker_api.remove_network(stranger)
    assert caught.value.code == "addresses_taken"
    assert stranger in caught.value.hint


def test_a_network_of_our_name_that_is_not_ours_is_left_alone(
    docker_api: APIClient, docker_layout: Layout, docker_containers: DockerContainers, environment: Environment
) -> None:
    name = f"{docker_layout.instance}-{environment.key}"
    docker_api.create_network(name, ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=f"{docker_layout.subnet[64]}/26")]))
    try:
        for call in (docker_containers.ensure_network, docker_containers.destroy):
            with pytest.raises(PlatformBroke) as caught:
                call(environment)
            assert caught.value.code == "name_taken"
    finally:
        docker_api.remove_network(name)


def test_slot_zero_means_any_free_addresses(
    docker_api: APIClient, docker_layout: Layout, docker_containers: DockerContainers, run: Callable[..., int]
) -> None:
    places = [Environment(0, "shop", f"test-{number}", Tier.NONPROD, 0) for number in (1, 2)]
    try:
        for place in places:
            docker_containers.ensure_network(place)
            docker_containers.ensure_network(place)
            assert run(place, "app", "say", "hi", log=FakeLog()) == 0
        names = {f"{docker_layout.instance}-{place.key}" for place in places}
        subnets = {one["IPAM"]["Config"][0]["Subnet"] for one in docker_api.networks() if one["Name"] in names}
        assert len(subnets) == 2
    finally:
        for place in places:
            docker_containers.destroy(place)


def test_destroying_detaches_strangers_and_removes_the_network(
    docker_api: APIClient,
    docker_layout: Layout,
    docker_containers: DockerContainers,
    environment: Environment,
    app_image: str,
) -> None:
    docker_containers.ensure_network(environment)
    name = f"{docker_layout.instance}-{environment.key}"
    stranger = docker_api.create_container(
        app_image, ["app", "idle"], labels={"branchline.instance": docker_layout.instance}
    )["Id"]
    docker_api.connect_container_to_network(stranger, name)
    docker_api.start(stranger)
    try:
        docker_containers.destroy(environment)
        assert name not in {one["Name"] for one in docker_api.networks()}
    finally:
        docker_api.remove_container(stranger, force=True)


# --- ending --------------------------------------------------------------------------------------------------


def test_a_request_in_flight_is_answered_before_the_end(
    docker_containers: DockerContainers,
    environment: Environment,
    start: Callable[..., list[Instance]],
    web: ServiceSpec,
) -> None:
    (instance,) = start(environment, 1, web)
    _get(instance)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(_get, instance, "/slow")
        time.sleep(0.3)
        began = time.monotonic()
        docker_containers.stop(environment, 1, grace=20)
        took = time.monotonic() - began
        assert answer.result() == "hello"
    assert 1 < took < 15
    assert docker_containers.state(instance) == InstanceState(exists=False)


def test_what_does_not_listen_to_sigterm_is_killed_after_the_grace(
    docker_containers: DockerContainers,
    environment: Environment,
    start: Callable[..., list[Instance]],
    web: ServiceSpec,
) -> None:
    services = [replace(web, name=name, command=("app", "stubborn")) for name in ("one", "two", "three")]
    for instance in start(environment, 1, *services):
        _wait_for(lambda one=instance: docker_containers.tail(one) == ["stubborn"])
    began = time.monotonic()
    docker_containers.stop(environment, 1, grace=2)

    assert 2 <= time.monotonic() - began < 5.5  # one after another would take six at least
    assert docker_containers.instances(environment) == []


def test_what_has_no_handler_for_sigterm_ends_at_once(
    docker_containers: DockerContainers,
    environment: Environment,
    start: Callable[..., list[Instance]],
    web: ServiceSpec,
) -> None:
    start(environment, 1, replace(web, command=("app", "idle")))
    began = time.monotonic()
    docker_containers.stop(environment, 1, grace=30)

    assert time.monotonic() - began < 10


def test_a_cancelled_command_is_gone_within_a_second_or_so(
    docker_api: APIClient, docker_layout: Layout, environment: Environment, run: Callable[..., int]
) -> None:
    log, stop = FakeLog(), FakeInterrupt()
    cancelled_at: list[float] = []

    def cancel() -> None:
        _wait_for(lambda: bool(log.lines))
        cancelled_at.append(time.monotonic())
        stop.cancel()

    threading.Thread(target=cancel).start()
    with pytest.raises(Cancelled):
        run(environment, "app", "nap", "60", log=log, stop=stop)
    took = time.monotonic() - cancelled_at[0]

    assert docker_api.containers(all=True, filters={"label": f"branchline.environment={environment.name}"}) == []
    assert took < 2


def test_a_command_that_somebody_removes_is_a_fault_of_the_platform(
    docker_api: APIClient, docker_layout: Layout, environment: Environment, run: Callable[..., int]
) -> None:
    log = FakeLog()

    def remove() -> None:
        _wait_for(lambda: bool(log.lines))
        docker_api.remove_container(f"{docker_layout.instance}-{environment.key}-d7-run-release", force=True)

    threading.Thread(target=remove).start()
    with pytest.raises(PlatformBroke) as caught:
        run(environment, "app", "nap", "60", log=log)
    assert caught.value.code == "container_gone"


def test_a_command_that_closes_its_output_is_waited_for(environment: Environment, run: Callable[..., int]) -> None:
    log = FakeLog()

    assert run(environment, "app", "close_output", log=log) == 5
    assert log.lines == ["closing"]


# --- output --------------------------------------------------------------------------------------------------


def test_a_hundred_megabytes_of_output_arrive_whole(environment: Environment, run: Callable[..., int]) -> None:
    log = CountingLog()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert run(environment, "app", "flood", "1000000", log=log) == 0
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KB

    assert log.count == log.in_order == 1_000_000
    assert grown < 50 * 1024


def test_a_flood_can_be_cancelled(environment: Environment, run: Callable[..., int]) -> None:
    log = CountingLog()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        run(environment, "app", "flood", "100000000", log=log, stop=FakeInterrupt(after=2))

    assert log.count > 0
    assert time.monotonic() - began < 8


def test_a_line_of_ten_megabytes_is_cut(environment: Environment, run: Callable[..., int]) -> None:
    log = FakeLog()
    assert run(environment, "app", "endless_line", str(10 * MEGABYTE), log=log) == 0

    first, second = log.lines
    assert second == "the end"
    assert first.startswith("y" * 16_000)
    assert len(first) < 16_500
    assert "more bytes" in first


def test_bytes_that_are_no_text_do_no_harm(environment: Environment, run: Callable[..., int]) -> None:
    log = FakeLog()
    assert run(environment, "app", "garbage", log=log) == 0

    assert log.lines == ["before \ufffd\ufffd after", "half é whole", "no newline"]


def test_what_was_written_before_joining_is_shown(environment: Environment, run: Callable[..., int]) -> None:
    class Overtaken(FakeInterrupt):
        def check(self) -> None:
            if first.lines:
                raise TakenOver("Another runner carries on.")

    first, second = FakeLog(), FakeLog()
    with pytest.raises(TakenOver):
        run(environment, "app", "nap", "2", log=first, stop=Overtaken())
    run(environment, "app", "nap", "2", log=second)

    assert second.lines == [
        "The command release is running already, since an earlier attempt; this is its output so far:",
        first.lines[0],
        "awake",
    ]


# --- images and Docker itself --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "command", "code"),
    [
        ("USER ghost", "app", "bad_image"),
        ("", "plain", "command_not_executable"),
        ("", "/usr/local/bin", "command_not_executable"),
        ("", "./app", "command_not_found"),
        ('ENTRYPOINT ["nonesuch"]', "app", "command_not_found"),
        ("ENV PATH=/nowhere", "app", "command_not_found"),
    ],
)
def test_an_image_that_cannot_run_the_command_fails_the_deployment(
    build_image: BuildImage,
    docker_containers: DockerContainers,
    environment: Environment,
    start: Callable[..., list[Instance]],
    run: Callable[..., int],
    lines: str,
    command: str,
    code: str,
) -> None:
    image = build_image(lines)
    with pytest.raises(DeploymentFailed) as caught:
        start(environment, 1, ServiceSpec("web", image, (command, "idle")))
    assert caught.value.code == code
    assert caught.value.sentence
    assert caught.value.hint
    assert docker_containers.instances(environment) == []

    with pytest.raises(DeploymentFailed) as caught:
        run(environment, command, "idle", log=FakeLog(), image=image)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("lines", "command"),
    [
        ("WORKDIR /usr/local/bin", "./app"),
        ("RUN ln -s /usr/local/bin/app /usr/local/bin/linked", "linked"),
        ("ENV PATH=/opt:/usr/local/bin:/usr/bin", "app"),
        ('ENTRYPOINT ["app"]', "say"),
        ("USER nobody", "app"),
    ],
)
def test_commands_are_found_as_a_shell_would(
    build_image: BuildImage, environment: Environment, run: Callable[..., int], lines: str, command: str
) -> None:
    log = FakeLog()
    assert run(environment, command, "say", "hello", log=log, image=build_image(lines)) == 0
    assert log.last == "hello"


def test_an_image_that_is_not_there_is_no_fault_of_the_project(
    environment: Environment, start: Callable[..., list[Instance]]
) -> None:
    with pytest.raises(PlatformBroke) as caught:
        start(environment, 1, ServiceSpec("web", "branchline.invalid/nothing:1", ("app",)))
    assert caught.value.code == "image_missing"


@pytest.mark.parametrize("address", ["unix:///nonexistent/docker.sock", "tcp://127.0.0.1:1"])
def test_an_engine_that_is_away_is_said_in_words(docker_layout: Layout, environment: Environment, address: str) -> None:
    containers = DockerContainers(address, docker_layout)

    with pytest.raises(PlatformBroke) as caught:
        containers.instances(environment)
    assert caught.value.code == "docker_unreachable"
    assert "docker info" in caught.value.hint
