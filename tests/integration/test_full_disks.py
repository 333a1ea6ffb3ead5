"""Disks without room beneath the registry and the runner's log: told as that, or not even noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import APIClient

from branchline.adapters.images import DockerImages
from branchline.domain.errors import PlatformBroke
from branchline.layout import Layout
from branchline.stack import first_start
from branchline.stack.part import running
from branchline.stack.registry import Registry
from tests.conftest import discard, new_layout
from tests.fakes.log import FakeInterrupt, FakeLog
from tests.full import small_disk

GO_ON = FakeInterrupt()
MEGABYTE = 1024 * 1024


@pytest.fixture
def layout() -> Iterator[Layout]:
    made = new_layout()
    yield made
    discard(made)


@pytest.mark.docker
@pytest.mark.stack
def test_a_registry_without_room_says_so_and_takes_the_image_when_there_is_some(layout: Layout, tmp_path: Path) -> None:
    tag = f"{layout.instance}-full:1"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY noise /\n")
    (tmp_path / "noise").write_bytes(os.urandom(3 * MEGABYTE))
    with small_disk(layout.home / "registry", "8M") as disk:
        part = Registry(layout, first_start.account())
        images, log = DockerImages(None, part.endpoint), FakeLog()
        with running(part, layout.log):
            image = images.build(
                tmp_path, dockerfile="Dockerfile", target=None, args={}, tag=tag, labels={}, log=log, stop=GO_ON
            )
            try:
                disk.fill(leave=MEGABYTE)
                with pytest.raises(PlatformBroke) as caught:
                    images.publish(image, "shop", "1", log, GO_ON)
                # Of what the registry answers, Docker passes on the status, and of some versions of it the words.
                assert caught.value.code in {"disk_full", "registry_unreachable"}
                assert caught.value.sentence.endswith(("cannot be moved.", "is in trouble."))
                assert "full" in caught.value.sentence + caught.value.hint
                disk.empty()
                assert images.publish(image, "shop", "1", log, GO_ON).startswith("shop@sha256:")
            finally:
                with APIClient(version="auto") as api:
                    api.remove_image(image, force=True)


def test_a_log_without_room_ends_no_runner() -> None:
    program = """
from branchline.runner import configure_log, log
configure_log()
for number in range(2000):
    log.info("begins", deployment=number)
try:
    raise KeyError
except KeyError:
    log.exception("story broke")
print("alive")
"""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, text=True, check=False, timeout=60
        )
    assert done.stdout == "alive\n"
