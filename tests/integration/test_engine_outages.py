"""A Docker engine that is killed at its work, or has no room: it is told as that, and trying again mends it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from docker import APIClient

from branchline.adapters.containers import DockerContainers
from branchline.adapters.images import DockerImages
from branchline.adapters.secret_files import SecretFiles
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import PlatformBroke
from branchline.domain.manifest import Limits
from branchline.layout import Layout
from branchline.operations.patience import Patience
from branchline.ports import ServiceSpec
from tests.conftest import discard, new_layout
from tests.fakes.log import FakeInterrupt, FakeLog
from tests.private_engine import IMAGE, PrivateEngine, private_engine

pytestmark = pytest.mark.docker

GO_ON = FakeInterrupt()
_T = TypeVar("_T")


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    with private_engine() as running:
        yield running


@pytest.fixture(scope="module")
def cramped() -> Iterator[PrivateEngine]:
    """One with little room."""
    with private_engine(room="120M") as running:
        yield running


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    made = new_layout()
    yield made
    discard(made)


@pytest.fixture
def containers(engine: PrivateEngine, layout: Layout) -> DockerContainers:
    return DockerContainers(engine.host, layout)


@pytest.fixture
def environment(containers: DockerContainers) -> Iterator[Environment]:
    slot = 100 + time.monotonic_ns() % 100
    place = Environment(slot, "shop", f"env{slot}", Tier.NONPROD, slot)
    yield place
    containers.destroy(place)


@pytest.fixture
def restart(engine: PrivateEngine) -> Iterator[Callable[[float], None]]:
    """Kill the engine in some seconds, and start it again a second after that."""
    threads: list[threading.Thread] = []

    def later(seconds: float) -> None:
        def do() -> None:
            time.sleep(seconds)
            engine.kill()
            time.sleep(1)
            engine.start()

        threads.append(threading.Thread(target=do))
        threads[-1].start()

    yield later
    for thread in threads:
        thread.join()


def patiently(attempt: Callable[[], _T]) -> tuple[_T, list[PlatformBroke]]:
    """What a stage does: try again while it is told that nobody answers. Returns what it met on its way, too."""
    patience, met = Patience(30), []
    while True:
        try:
            return attempt(), met
        except PlatformBroke as error:
            pause = patience.next_pause() if error.passing else None
            if pause is None:
                raise
            met.append(error)
        time.sleep(pause)


def built(engine: PrivateEngine, folder: Path, dockerfile: str, log: FakeLog) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)
    images = DockerImages(engine.host, "127.0.0.1:1", SecretFiles("bltest"))
    return images.build(
        folder, dockerfile="Dockerfile", target=None, args={}, tag="built:1", labels={}, log=log, stop=GO_ON
    )


def test_an_engine_killed_in_a_build(engine: PrivateEngine, restart: Callable[[float], None], tmp_path: Path) -> None:
    log = FakeLog()
    text = f"FROM {IMAGE}\nRUN echo {time.time_ns()} && sleep 2\n"
    restart(0.8)
    image, met = patiently(lambda: built(engine, tmp_path / "context", text, log))
    assert image.startswith("sha256:")
    assert {error.code for error in met} == {"docker_unreachable"}
    assert all(error.hint for error in met)
    with APIClient(engine.host, version="auto") as client:
        assert client.inspect_image(image)["Id"] == image


def test_an_engine_killed_while_containers_start(
    containers: DockerContainers, environment: Environment, restart: Callable[[float], None]
) -> None:
    services = [ServiceSpec("web", IMAGE, ("sleep", "600"), 12, None)]
    restart(0.5)
    time.sleep(0.2)
    started, met = patiently(lambda: containers.start(environment, 7, services, GO_ON))
    assert met, "it was quicker than the kill"
    assert {error.code for error in met} == {"docker_unreachable"}
    assert len({one.address for one in started}) == 12
    assert all(containers.state(one).running for one in started)
    assert sorted(one.address for one in containers.instances(environment, 7)) == sorted(o.address for o in started)


def test_live_containers_come_back_with_an_engine_that_was_killed(
    engine: PrivateEngine, containers: DockerContainers, environment: Environment
) -> None:
    (web,) = containers.start(environment, 7, [ServiceSpec("web", IMAGE, ("sleep", "600"), 1, None)], GO_ON)
    engine.kill()
    with pytest.raises(PlatformBroke) as caught:
        containers.state(web)
    assert caught.value.passing
    engine.start()
    until = time.monotonic() + 15
    while not containers.state(web).running:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert containers.instances(environment, 7) == [web]


def test_an_engine_killed_while_a_command_runs(
    containers: DockerContainers, environment: Environment, restart: Callable[[float], None]
) -> None:
    """What it had done is not known, so it is not begun again by itself: that it was cut off is said."""
    log = FakeLog()
    containers.ensure_network(environment)
    command = ("sh", "-c", "echo begun; sleep 30; echo done")
    restart(1.0)
    began = time.monotonic()
    with pytest.raises(PlatformBroke) as caught:
        patiently(lambda: containers.run(environment, "release", 7, IMAGE, command, {}, Limits(), log, GO_ON))
    assert caught.value.code == "command_cut_off"
    assert caught.value.sentence.startswith("The command release was cut off from outside")
    assert caught.value.hint
    assert "begun" in log.lines
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("dockerfile", "words"),
    [
        ("RUN dd if=/dev/zero of=/big bs=1M count=500", "the build failed at `RUN dd if=/dev/zero"),
        ("COPY big /big", "The disk of the Docker engine is full."),
    ],
    ids=["run", "copy"],
)
def test_a_full_disk_in_a_build(cramped: PrivateEngine, tmp_path: Path, dockerfile: str, words: str) -> None:
    with (tmp_path / "big").open("wb") as big:
        big.truncate(300_000_000)
    with pytest.raises(PlatformBroke) as caught:
        built(cramped, tmp_path, f"FROM {IMAGE}\n{dockerfile}\n", FakeLog())
    assert caught.value.code == "docker_disk_full"
    assert words in caught.value.sentence
    assert "docker builder prune" in caught.value.hint
    until = time.monotonic() + 20  # what it was at when the room ended, BuildKit lets go of in its own time
    while not pruned_and_built(cramped, tmp_path):
        assert time.monotonic() < until
        time.sleep(0.3)


def pruned_and_built(engine: PrivateEngine, folder: Path) -> bool:
    """Whether a small build works after what the hint says was done."""
    subprocess.run(["docker", "-H", engine.host, "builder", "prune", "--force"], check=True, capture_output=True)
    try:
        return bool(built(engine, folder, f"FROM {IMAGE}\nRUN true\n", FakeLog()))
    except PlatformBroke:
        return False
