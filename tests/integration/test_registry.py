"""The embedded registry's store: what is pruned is gone from it and from the disk, what is kept is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.adapters.images import DockerImages
from branchline.adapters.registry import RegistryArchive
from branchline.adapters.secret_files import SecretFiles
from branchline.domain.errors import PlatformBroke
from branchline.stack.registry import Registry
from tests.fakes.log import FakeInterrupt, FakeLog

pytestmark = [pytest.mark.docker, pytest.mark.stack]
GO_ON = FakeInterrupt()
MEGABYTE = 1_000_000
LABELS = {"branchline.instance": f"blt{os.getpid()}-registry"}


@pytest.fixture
def images(registry: Registry) -> Iterator[DockerImages]:
    made = DockerImages(None, registry.endpoint, SecretFiles("bltest"))
    yield made
    forget(made)


def publish(images: DockerImages, folder: Path, tag: str) -> str:
    """An image with a layer of a megabyte that no other has."""
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
    (folder / "file").write_bytes(os.urandom(MEGABYTE))
    local = f"blt-registry:{tag}"
    image = images.build(
        folder, dockerfile="Dockerfile", target=None, args={}, tag=local, labels=LABELS, log=FakeLog(), stop=GO_ON
    )
    reference = images.publish(image, "blt/kept-house", tag, FakeLog(), GO_ON)
    images.remove(local)
    return reference


def forget(images: DockerImages) -> None:
    for name in [name for names in images.strays(set(), LABELS) for name in names]:
        if "/blt/kept-house" in name:
            images.remove(name)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_is_pruned_gives_its_room_back(registry: Registry, images: DockerImages, tmp_path: Path) -> None:
    data = registry.data
    archive = RegistryArchive(registry.endpoint, registry.reclaim_command(), registry.command().environment)
    kept, *gone = [publish(images, tmp_path / "context", tag) for tag in "123"]
    before = size(data)
    archive.prune("blt/kept-house", {kept})
    archive.reclaim()
    assert before - size(data) >= 2 * MEGABYTE
    # What was collected can be pushed again: the registry remembers nothing of it.
    assert publish(images, tmp_path / "context", "2") not in {kept, *gone}
    archive.prune("blt/kept-house", set())


def test_a_registry_that_is_away(registry: Registry) -> None:
    archive = RegistryArchive("127.0.0.1:1", registry.reclaim_command(), registry.command().environment)
    with pytest.raises(PlatformBroke) as caught:
        archive.prune("blt/kept-house", set())
    assert (caught.value.code, caught.value.passing) == ("registry_unreachable", True)


def test_garbage_collection_that_fails_says_why() -> None:
    with pytest.raises(PlatformBroke, match="garbage collection ended with status"):
        RegistryArchive("127.0.0.1:1", ("sh", "-c", "echo no store >&2; exit 3"), {"PATH": os.defpath}).reclaim()
