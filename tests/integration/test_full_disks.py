"""Disks without room beneath the registry and the runner's log: told as that, or not even noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from docker import APIClient

from branchline.adapters.images import DockerImages
from branchline.adapters.secret_files import SecretFiles
from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Inherits, Tier
from branchline.domain.errors import PlatformBroke
from branchline.domain.layers import Layer
from branchline.layout import Layout
from branchline.stack import first_start
from branchline.stack.openbao import OpenBao
from branchline.stack.part import running
from branchline.stack.registry import Registry
from tests.conftest import discard, new_layout
from tests.fakes.log import FakeInterrupt, FakeLog
from tests.full import small_disk
from tests.openbao import RealConfigStore

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
        images, log = DockerImages(None, part.endpoint, SecretFiles("bltest")), FakeLog()
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


@pytest.mark.stack
def test_a_config_store_that_cannot_write_its_audit_says_so_and_goes_on_when_it_can(layout: Layout) -> None:
    """It answers nobody whom it cannot write down. What it was asked to write it may have written all the same."""
    place = Environment(1, "shop", "develop", Tier.NONPROD, 1, inherits=Inherits.COMMON)
    user, folder = first_start.account(), layout.home / "openbao"
    part = OpenBao(layout, user)
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder, "300M"))
        if user:
            os.chown(folder, user.uid, user.gid)
        stack.enter_context(running(part, layout.log))
        store = RealConfigStore(part, layout)
        store.put("shop", "develop", {"A": "hush-hush"})
        reader, writer = store.reader(Tier.NONPROD), store.writer()
        assert len(reader.read(place)) == 1
        writer.keys(Layer("shop", "develop"))
        disk.fill(leave=0)
        for ask in (
            lambda: reader.read(place),
            lambda: writer.write(Layer("shop", "develop"), {"A": Secret("more-hush")}, 1),
        ):
            with pytest.raises(PlatformBroke) as caught:
                ask()
            assert caught.value.code == "config_unreachable"
            assert "fault of its own" in caught.value.sentence
            assert "full disk" in caught.value.hint
            assert "hush" not in f"{caught.value} {caught.value.hint}"
        disk.empty()
        assert reader.read(place)["A"].reveal() in {"hush-hush", "more-hush"}


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
