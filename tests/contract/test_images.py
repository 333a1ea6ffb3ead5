"""The promises of Images, kept by the fake and by Docker with a real registry."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from branchline.adapters.images import DockerImages
from branchline.adapters.registry import RegistryArchive
from branchline.adapters.secret_files import SecretFiles
from branchline.domain.config import Secret
from branchline.domain.errors import BadInput, BranchlineError, Cancelled, DeploymentFailed, PlatformBroke
from branchline.ports import ImageArchive, Images
from tests.contract.conftest import BASE_IMAGE
from tests.fakes.images import FakeArchive, FakeImages
from tests.fakes.log import FakeInterrupt, FakeLog

GO_ON = FakeInterrupt()
LABELS = {"branchline.instance": f"blt{os.getpid()}", "branchline.project": "shop"}


@dataclass
class World:
    """Images with a registry that works, and the same with one that does not answer."""

    images: Images
    archive: ImageArchive
    away: Callable[[], Images]
    context: Path
    tags: set[str]
    use: Callable[[str], object]
    """Start a container by this name."""

    def build(
        self,
        dockerfile: str = "",
        *,
        target: str | None = None,
        stop: FakeInterrupt = GO_ON,
        secrets: dict[str, Secret] | None = None,
        **files: str,
    ) -> str:
        """Build a context of these files."""
        if dockerfile:
            (self.context / "Dockerfile").write_text(dockerfile)
        for name, text in files.items():
            (self.context / name).write_text(text)
        self.log = FakeLog()
        tag = f"blt{os.getpid()}-images:{len(self.tags)}"
        self.tags.add(tag)
        return self.images.build(
            self.context,
            dockerfile="Dockerfile",
            target=target,
            args={},
            tag=tag,
            labels=LABELS,
            log=self.log,
            stop=stop,
            secrets=secrets,
        )


@pytest.fixture(params=["fake", pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.stack])])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    context = tmp_path / "context"
    context.mkdir()
    if request.param == "fake":
        fake = FakeImages()

        def stop_registry() -> Images:
            fake.trouble = "unreachable"
            return fake

        yield World(fake, FakeArchive(fake), stop_registry, context, set(), fake.in_use.add)
        return
    registry = request.getfixturevalue("registry")
    archive = RegistryArchive(registry.endpoint, registry.reclaim_command(), registry.command().environment)
    images = DockerImages(None, registry.endpoint, SecretFiles("bltest"))
    api = request.getfixturevalue("docker_api")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = taken.getsockname()[1]
        away = DockerImages(None, f"127.0.0.1:{port}", SecretFiles("bltest"))
        used: list[str] = []

        def use(name: str) -> None:
            used.append(api.create_container(name, command="/file")["Id"])

        yield World(images, archive, lambda: away, context, set(), use)
    for container in used:
        api.remove_container(container)
    for image in api.images(filters={"label": f"branchline.instance={LABELS['branchline.instance']}"}):
        api.remove_image(image["Id"], force=True)


def failed(world: World, code: str, dockerfile: str, **more: str) -> BranchlineError:
    """The error of a build that must fail as the project's own fault."""
    with pytest.raises(DeploymentFailed) as caught:
        world.build(dockerfile, **more)
    assert caught.value.code == code
    assert caught.value.sentence.endswith(".")
    assert caught.value.hint
    return caught.value


# --- build


def test_a_build_that_works(world: World) -> None:
    image = world.build(f"FROM {BASE_IMAGE}\nCOPY file /\nRUN echo well said && echo twice\n", file=os.urandom(8).hex())
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image)
    assert "  well said" in world.log.lines
    assert "  twice" in world.log.lines
    assert any("RUN echo well said" in line for line in world.log.lines)


def test_a_repeated_build_gives_the_same_image_at_once(world: World) -> None:
    first = world.build(f"FROM {BASE_IMAGE}\nRUN echo {time.time_ns()} && sleep 0.2\nCOPY file /\n", file="1")
    began = time.monotonic()
    assert world.build(file="1") == first
    assert time.monotonic() - began < 2
    assert world.build(file="2") != first


def test_a_step_that_fails(world: World) -> None:
    text = f"FROM {BASE_IMAGE}\nRUN echo before\nRUN echo {time.time_ns()} && echo oh no && exit 3\nRUN echo never\n"
    error = failed(world, "build_failed", text)
    assert re.fullmatch(
        r"The build failed at `RUN echo \d+ && echo oh no && exit 3` \(exit status 3\)\.", error.sentence
    )
    assert "  oh no" in world.log.lines
    assert "  never" not in world.log.lines


def test_a_file_that_is_missing(world: World) -> None:
    error = failed(world, "build_failed", "FROM scratch\nCOPY nothing /\n")
    assert error.sentence.startswith("The build failed at `COPY nothing /`")


@pytest.mark.parametrize("text", ["FORM scratch\n", "# nothing\n", "FROM scratch\nnonsense\n"])
def test_a_dockerfile_that_makes_no_sense(world: World, text: str) -> None:
    assert "Dockerfile" in failed(world, "build_failed", text).sentence


def test_no_dockerfile(world: World) -> None:
    error = failed(world, "no_dockerfile", "", file="1")
    assert error.sentence == "There is no Dockerfile in the build context."


def test_a_folder_for_a_dockerfile(world: World) -> None:
    (world.context / "Dockerfile").mkdir()
    failed(world, "no_dockerfile", "")


def test_a_dockerfile_that_leads_out(world: World, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
    (world.context / "Dockerfile").symlink_to(tmp_path / "Dockerfile")
    failed(world, "no_dockerfile", "", file="1")


def test_a_dockerfile_behind_a_link(world: World) -> None:
    (world.context / "docker").mkdir()
    (world.context / "docker" / "Main").write_text("FROM scratch\nCOPY file /\n")
    (world.context / "Dockerfile").symlink_to("docker/Main")
    assert world.build(file="1")


def test_a_stage_by_name(world: World) -> None:
    text = f"FROM {BASE_IMAGE} AS runtime\nCOPY file /\nFROM runtime AS test\nRUN exit 4\nFROM runtime\nRUN exit 5\n"
    assert world.build(text, target="runtime", file=os.urandom(8).hex())
    with pytest.raises(DeploymentFailed, match="exit status 4"):
        world.build(target="test")
    with pytest.raises(DeploymentFailed, match="exit status 5"):
        world.build()


@pytest.mark.parametrize("target", ["nowhere", "-x", "a b", "ü", "x" * 300])
def test_a_stage_that_is_not_there(world: World, target: str) -> None:
    with pytest.raises(DeploymentFailed) as caught:
        world.build("FROM scratch AS runtime\nCOPY file /\n", target=target, file="1")
    assert caught.value.code == "no_build_target"
    assert caught.value.sentence == f"The Dockerfile has no stage {target}."


def test_a_build_is_cancelled_within_a_second(world: World) -> None:
    stop = FakeInterrupt(after=1.0)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        world.build(f"FROM {BASE_IMAGE}\nRUN echo {time.time_ns()} && sleep 600\n", stop=stop)
    assert time.monotonic() - began < 2.0


# --- publish, pull, remove


def small(world: World) -> str:
    """An image that no other test has, of one layer."""
    return world.build("FROM scratch\nCOPY file /\n", file=os.urandom(8).hex())


def test_publish_names_the_image_by_digest(world: World) -> None:
    log = FakeLog()
    image = small(world)
    reference = world.images.publish(image, "blt/shop", "1", log, GO_ON)
    assert re.fullmatch(r"blt/shop@sha256:[0-9a-f]{64}", reference)
    assert log.lines[0] == "Pushing blt/shop:1"
    assert len(log.lines) < 5
    assert world.images.publish(image, "blt/shop", "1", log, GO_ON) == reference
    assert world.images.publish(image, "blt/shop", "2", log, GO_ON) == reference


def test_another_image_under_the_same_tag_has_another_digest(world: World) -> None:
    first = world.images.publish(small(world), "blt/shop", "latest", FakeLog(), GO_ON)
    second = world.images.publish(small(world), "blt/shop", "latest", FakeLog(), GO_ON)
    assert first != second
    assert world.images.pull(first, FakeLog(), GO_ON).endswith(first)


def test_pull_what_is_here_already(world: World) -> None:
    reference = world.images.publish(small(world), "blt/shop", "1", FakeLog(), GO_ON)
    log = FakeLog()
    began = time.monotonic()
    name = world.images.pull(reference, log, GO_ON)
    assert time.monotonic() - began < 0.5
    assert name.endswith(f"/{reference}")
    assert log.lines == []


def test_pull_what_is_gone_from_here(world: World) -> None:
    image = small(world)
    reference = world.images.publish(image, "blt/shop", "1", FakeLog(), GO_ON)
    world.images.remove(image)
    log = FakeLog()
    name = world.images.pull(reference, log, GO_ON)
    assert log.lines[0] == f"Pulling {reference}"
    assert world.images.pull(reference, FakeLog(), GO_ON) == name
    world.images.remove(name)


def test_publish_what_is_gone(world: World) -> None:
    with pytest.raises(PlatformBroke) as caught:
        world.images.publish("sha256:" + "0" * 64, "blt/shop", "1", FakeLog(), GO_ON)
    assert caught.value.code == "image_gone"


def test_pull_what_was_never_published(world: World) -> None:
    with pytest.raises(PlatformBroke) as caught:
        world.images.pull("blt/never@sha256:" + "0" * 64, FakeLog(), GO_ON)
    assert caught.value.code == "image_gone"


@pytest.mark.parametrize("reference", ["", "shop", "shop:1", "../x@sha256:" + "0" * 64, "a@sha256:0", "--x", "ü" * 300])
def test_pull_what_names_nothing(world: World, reference: str) -> None:
    with pytest.raises(BadInput) as caught:
        world.images.pull(reference, FakeLog(), GO_ON)
    assert caught.value.code == "bad_reference"


def test_a_registry_that_does_not_answer(world: World) -> None:
    image = small(world)
    away = world.away()
    with pytest.raises(PlatformBroke) as caught:
        away.publish(image, "blt/shop", "1", FakeLog(), GO_ON)
    assert caught.value.code == "registry_unreachable"
    assert caught.value.hint
    with pytest.raises(PlatformBroke) as caught:
        away.pull("blt/shop@sha256:" + "0" * 64, FakeLog(), GO_ON)
    assert caught.value.code == "registry_unreachable"
    away.remove(image)


def test_what_is_here_needs_no_registry(world: World) -> None:
    image = small(world)
    reference = world.images.publish(image, "blt/shop", "1", FakeLog(), GO_ON)
    if isinstance(world.images, FakeImages):
        world.away()
    assert world.images.pull(reference, FakeLog(), GO_ON)


@pytest.mark.parametrize("name", ["blt/never:1", "sha256:" + "0" * 64, "127.0.0.1:1/blt/never@sha256:" + "0" * 64])
def test_removing_what_is_not_there_takes_nothing_else(world: World, name: str) -> None:
    image = small(world)
    world.images.remove(name)
    assert world.images.publish(image, "blt/kept", "1", FakeLog(), GO_ON).startswith("blt/kept@sha256:")


def test_removing_twice(world: World) -> None:
    image = small(world)
    for _ in range(2):
        world.images.remove(image)
    with pytest.raises(PlatformBroke):
        world.images.publish(image, "blt/shop", "1", FakeLog(), GO_ON)


def test_publishing_can_be_cancelled(world: World) -> None:
    stop = FakeInterrupt()
    stop.cancel()
    with pytest.raises(Cancelled):
        world.images.publish(small(world), "blt/shop", "1", FakeLog(), stop)


# --- housekeeping


def test_what_a_container_uses_stays_by_the_name_that_it_was_started_by(world: World) -> None:
    image = small(world)
    (built_as,) = world.tags
    name = world.images.pull(world.images.publish(image, "blt/used", "1", FakeLog(), GO_ON), FakeLog(), GO_ON)
    world.use(name)
    for each in (name, image, name.partition("@")[0] + ":1", built_as):
        world.images.remove(each)
    away = world.away()
    assert world.images.pull(name.partition("/")[2], FakeLog(), GO_ON) == name, "it is here"
    with pytest.raises(PlatformBroke) as caught:
        away.publish(built_as, "blt/other", "1", FakeLog(), GO_ON)
    assert caught.value.code == "image_gone", "what it was called while it was built is nobody's any more"


def test_strays_are_what_was_published_and_is_not_kept(world: World) -> None:
    kept, gone = (world.images.publish(small(world), "blt/shop", tag, FakeLog(), GO_ON) for tag in "12")
    unpublished = small(world)
    strays = [name for names in world.images.strays({kept}, LABELS) for name in names]
    assert any(name.endswith(f"/{gone}") for name in strays)
    assert not any(name.endswith(f"/{kept}") for name in strays)
    assert world.images.strays({kept}, {**LABELS, "branchline.instance": "another"}) == [], (
        "what others published is theirs"
    )
    forget_these = [name for name in strays if "/blt/shop" in name]
    for name in forget_these:
        world.images.remove(name)
    log = FakeLog()
    world.images.pull(kept, log, GO_ON)
    assert log.lines == []
    world.images.pull(gone, log, GO_ON)
    assert log.lines
    assert world.images.publish(unpublished, "blt/other", "1", FakeLog(), GO_ON)
    strays = [name for names in world.images.strays({kept, gone}, LABELS) for name in names]
    assert not any(name.endswith((f"/{kept}", f"/{gone}")) for name in strays)


def test_what_the_archive_prunes_is_gone_and_what_it_keeps_is_whole(world: World) -> None:
    kept, *gone = [world.images.publish(small(world), "blt/archive", tag, FakeLog(), GO_ON) for tag in "123"]
    other = world.images.publish(small(world), "blt/spared", "1", FakeLog(), GO_ON)
    assert world.archive.prune("blt/archive", {kept}) == sorted(gone)
    world.archive.reclaim()
    assert world.archive.prune("blt/archive", {kept}) == []
    assert world.archive.prune("blt/never-heard-of", set()) == []
    forget(world, "blt/archive", "blt/spared")
    for reference in (kept, other):
        assert world.images.pull(reference, FakeLog(), GO_ON)
    with pytest.raises(PlatformBroke) as caught:
        world.images.pull(gone[0], FakeLog(), GO_ON)
    assert caught.value.code == "image_gone"
    assert world.archive.prune("blt/archive", set()) == [kept]


def forget(world: World, *repositories: str) -> None:
    """Remove from this machine what was published there."""
    for name in [name for names in world.images.strays(set(), LABELS) for name in names]:
        if any(f"/{repository}" in name for repository in repositories):
            world.images.remove(name)


def test_the_build_cache_can_be_bounded(world: World) -> None:
    image = world.build(f"FROM {BASE_IMAGE}\nRUN head -c 3000000 /dev/urandom > /{os.getpid()}\n")
    assert world.images.bound_cache(10**12) == 0
    world.images.remove(image)  # what an image has as well takes no room of the cache's own
    assert world.images.bound_cache(10**6) > 10**6 or isinstance(world.images, FakeImages)
