"""DockerImages where a fake has nothing to say: secrets, floods, orphans, speed, and who may be pushed to."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from docker import APIClient

from branchline.adapters.images import DockerImages
from branchline.adapters.secret_files import SecretFiles
from branchline.domain.config import Secret
from branchline.domain.errors import Cancelled, DeploymentFailed, PlatformBroke
from branchline.stack.registry import Registry
from tests.contract.conftest import BASE_IMAGE
from tests.contract.git_host import server
from tests.fakes.log import FakeInterrupt, FakeLog

pytestmark = [pytest.mark.docker, pytest.mark.stack]

GO_ON = FakeInterrupt()
INSTANCE = f"blt{os.getpid()}-i"
Build = Callable[..., str]


@pytest.fixture(scope="module")
def api() -> Iterator[APIClient]:
    """Docker itself, to look behind the adapter's back."""
    with APIClient(version="auto", timeout=120) as client:
        yield client
        for image in client.images(filters={"label": f"branchline.instance={INSTANCE}"}):
            client.remove_image(image["Id"], force=True)


@pytest.fixture
def images(api: APIClient, registry: Registry, tmp_path: Path) -> DockerImages:
    """The adapter, with a CA bundle that nobody may find in an image."""
    (tmp_path / "ca.crt").write_text("very-private-bundle\n")
    return DockerImages(None, registry.endpoint, SecretFiles(INSTANCE), tmp_path / "ca.crt")


@pytest.fixture
def build(images: DockerImages, tmp_path: Path) -> Build:
    """Build a Dockerfile, with a file of random content beside it."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text(os.urandom(8).hex())

    def made(
        text: str,
        log: FakeLog | None = None,
        stop: FakeInterrupt = GO_ON,
        secrets: dict[str, Secret] | None = None,
        **args: str,
    ) -> str:
        (context / "Dockerfile").write_text(text)
        return images.build(
            context, dockerfile="Dockerfile", target=None, args=args, tag=f"{INSTANCE}:{time.time_ns()}",
            labels={"branchline.instance": INSTANCE, "branchline.project": "shop"}, log=log or FakeLog(), stop=stop,
            secrets=secrets,
        )  # fmt: skip

    return made


def eventually(condition: Callable[[], bool], within: float) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def running(word: str) -> list[int]:
    """Processes of this machine that have this word in their arguments, those in containers included."""
    return [
        one.pid for one in psutil.process_iter(["cmdline"]) if any(word in part for part in one.info["cmdline"] or [])
    ]


def test_labels_and_arguments(build: Build, api: APIClient) -> None:
    image = build('FROM scratch\nARG WORD\nCOPY file /\nLABEL said="$WORD"\n', WORD="a b'c\"$HOME")
    labels = api.inspect_image(image)["Config"]["Labels"]
    assert labels == {"branchline.instance": INSTANCE, "branchline.project": "shop", "said": "a b'c\"$HOME"}


def test_the_ca_bundle_is_there_and_stays_out_of_the_image(build: Build, api: APIClient) -> None:
    log = FakeLog()
    text = f"FROM {BASE_IMAGE}\nCOPY file /\nRUN --mount=type=secret,id=ca wc -c < /run/secrets/ca\n"
    text += "RUN ! ls /run/secrets/ca\n"
    image = build(text, log)
    assert "  20" in log.lines
    assert "very-private-bundle" not in str(api.history(image)) + str(api.inspect_image(image))
    exported = subprocess.run(["docker", "save", image], capture_output=True, check=True).stdout
    assert b"very-private-bundle" not in exported
    assert b"RUN --mount" in exported or b"/run/secrets/ca" in exported  # the history is in what was searched


def test_the_secrets_of_a_build_are_nowhere_afterwards(build: Build, api: APIClient, tmp_path: Path) -> None:
    log, value = FakeLog(), f"canary-{os.urandom(8).hex()}"
    text = f"FROM {BASE_IMAGE}\nCOPY file /\nRUN --mount=type=secret,id=TOKEN wc -c < /run/secrets/TOKEN && sleep 1\n"
    seen: list[int] = []

    class Looking(FakeInterrupt):
        def check(self) -> None:
            seen.extend(running(value))

    image = build(text, log, Looking(), {"TOKEN": Secret(value)})
    assert "  23" in log.lines
    assert seen == []
    assert value not in str(api.history(image)) + str(api.inspect_image(image)) + "".join(log.lines)
    assert value.encode() not in subprocess.run(["docker", "save", image], capture_output=True, check=True).stdout
    assert not list(tmp_path.glob("build-*"))


def test_a_hundred_megabytes_of_output(build: Build) -> None:
    class Counting(FakeLog):
        count = 0
        clipped = False

        def write(self, line: str) -> None:
            self.count += len(line)
            self.clipped |= "output clipped" in line

    log = Counting()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    build(f"FROM {BASE_IMAGE}\nCOPY file /\nRUN yes $(printf %099d 0) | head -c 100000000\n", log)
    assert time.monotonic() - began < 60
    assert log.count > 50_000
    assert log.clipped  # BuildKit itself keeps a part only of what comes so fast, and says so
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_cancelled_build_leaves_no_process(build: Build) -> None:
    number = str(random.randrange(10**6, 10**7))
    stop = FakeInterrupt()
    log = FakeLog()

    class Starting(FakeLog):
        def write(self, line: str) -> None:
            log.write(line)
            if line == "  begun":
                stop.cancel()

    began = time.monotonic()
    with pytest.raises(Cancelled):
        build(f"FROM {BASE_IMAGE}\nCOPY file /\nRUN echo begun && sleep {number}\n", Starting(), stop)
    assert "  begun" in log.lines
    assert time.monotonic() - began < 20
    assert eventually(lambda: not running(number), 1.0)


def test_a_build_ends_with_a_killed_runner(tmp_path: Path, registry: Registry) -> None:
    number = str(random.randrange(10**6, 10**7))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nRUN sleep {number}\n")
    script = f"""
from pathlib import Path
from branchline.adapters.images import DockerImages
from branchline.adapters.secret_files import SecretFiles
from tests.fakes.log import FakeInterrupt, FakeLog
images = DockerImages(None, "{registry.endpoint}", SecretFiles("{INSTANCE}"))
images.build(Path("{tmp_path}/c"), dockerfile="Dockerfile", target=None, args={{}},
    tag="{INSTANCE}:killed", labels={{}}, log=FakeLog(), stop=FakeInterrupt())
"""
    runner = subprocess.Popen([sys.executable, "-c", script])
    try:
        assert eventually(lambda: any("sleep" in psutil.Process(pid).name() for pid in running(number)), 30)
        runner.send_signal(signal.SIGKILL)
        assert eventually(lambda: not running(number), 3.0)
    finally:
        runner.kill()
        runner.wait()


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    away = DockerImages(f"unix://{tmp_path}/no.sock", "127.0.0.1:1", SecretFiles(INSTANCE))
    with pytest.raises(PlatformBroke) as caught:
        away.build(
            tmp_path, dockerfile="Dockerfile", target=None, args={}, tag="x", labels={}, log=FakeLog(), stop=GO_ON
        )
    assert caught.value.code == "docker_unreachable"
    for call in (lambda: away.publish("x", "shop", "1", FakeLog(), GO_ON), lambda: away.remove("x")):
        with pytest.raises(PlatformBroke) as caught:
            call()
        assert caught.value.code == "docker_unreachable"


def test_a_base_image_that_the_registry_lacks(build: Build, registry: Registry) -> None:
    with pytest.raises(DeploymentFailed, match=r"base image .*/never:1 cannot be had\.") as caught:
        build(f"FROM {registry.endpoint}/never:1\nCOPY file /\n")
    assert caught.value.code == "base_image_unavailable"


def test_a_base_image_whose_registry_is_away(build: Build) -> None:
    with pytest.raises(PlatformBroke) as caught:
        build("FROM 127.0.0.1:1/never:1\nCOPY file /\n")
    assert caught.value.code == "base_image_unavailable"


def test_a_registry_that_wants_a_password(build: Build) -> None:
    image = build("FROM scratch\nCOPY file /\n")
    with server(401) as address:
        closed = DockerImages(None, address.removeprefix("http://"), SecretFiles(INSTANCE))
        with pytest.raises(PlatformBroke) as caught:
            closed.publish(image, "shop", "1", FakeLog(), GO_ON)
    assert caught.value.code == "registry_refused"


def test_a_push_can_be_cancelled(build: Build) -> None:
    """The registry takes connections and says nothing: only `stop` ends that."""
    image = build("FROM scratch\nCOPY file /\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = DockerImages(None, f"127.0.0.1:{silent.getsockname()[1]}", SecretFiles(INSTANCE))
        began = time.monotonic()
        with pytest.raises(Cancelled):
            slow.publish(image, "shop", "1", FakeLog(), FakeInterrupt(after=0.5))
        assert time.monotonic() - began < 1.5


def test_an_image_that_a_container_uses_stays(images: DockerImages, build: Build, api: APIClient) -> None:
    image = build('FROM scratch\nCOPY file /\nCMD ["/file"]\n')
    reference = images.publish(image, "blt/used", "1", FakeLog(), GO_ON)
    name = images.pull(reference, FakeLog(), GO_ON)
    container = api.create_container(name, name=f"{INSTANCE}-used")
    try:
        for each in (name, image, name.partition("@")[0] + ":1"):
            images.remove(each)
        log = FakeLog()
        assert images.pull(reference, log, GO_ON) == name
        assert log.lines == []  # it was here all the time
    finally:
        api.remove_container(container["Id"], force=True)
    images.remove(image)
    assert api.images(name.partition("@")[0]) == []


def test_what_costs_nothing_is_quick(images: DockerImages, build: Build, tmp_path: Path) -> None:
    text = f"FROM {BASE_IMAGE}\nCOPY file /\nRUN sleep 1\n"
    build(text)
    took = []
    for _ in range(5):
        began = time.perf_counter()
        image = build(text)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.9  # the RUN was not run again
    small = build("FROM scratch\nCOPY file /\n")
    assert image != small
    reference = images.publish(small, "blt/quick", "1", FakeLog(), GO_ON)
    pushes, pulls = [], []
    for _ in range(5):
        began = time.perf_counter()
        images.publish(small, "blt/quick", "1", FakeLog(), GO_ON)
        middle = time.perf_counter()
        images.pull(reference, FakeLog(), GO_ON)
        pushes.append(middle - began)
        pulls.append(time.perf_counter() - middle)
    assert min(pushes) < 0.2
    assert min(pulls) < 0.05
