"""One platform for all end-to-end tests of a session, and one to be hurt; every test brings projects of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest

from branchline.stack.first_start import instance_name
from branchline.stack.removal import remove_instance
from tests.e2e.duo import SITES, Duo
from tests.e2e.holding import Holding
from tests.e2e.platform import Platform, Repository


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    yield from running(Platform)


@pytest.fixture(scope="session")
def duo() -> Iterator[Duo]:
    """A platform with two runners, which tests may hurt as they like."""
    yield from running(Duo, BRANCHLINE_RUNNERS="2", BRANCHLINE_DEPLOYMENTS_AT_ONCE="12")


@pytest.fixture(scope="session")
def impatient() -> Iterator[Duo]:
    """A platform that gives up a server which does not answer after seconds, and may be hurt as well."""
    yield from running(Duo, BRANCHLINE_PATIENCE="4", BRANCHLINE_DEPLOYMENTS_AT_ONCE="12")


@pytest.fixture(scope="session")
def holding(duo: Duo) -> Holding:
    """Holds the deployments of that platform where a test wants them."""
    return Holding(duo.layout)


@pytest.fixture(scope="session")
def sites(duo: Duo) -> dict[str, Repository]:
    """The project of each stage, all of them live."""
    longer = {"window: 2s": "window: 5s"}  # long enough to turn sick within
    repositories = {stage: duo.quick_project(f"at-{stage}", longer if stage == "undo" else None) for stage in SITES}
    for repository in repositories.values():
        duo.push(repository, "0")
    asked = [duo.request(f"at-{stage}").json()["id"] for stage in SITES]
    for number in asked:
        done = duo.ended(number)
        assert done["state"] == "succeeded", done
    return repositories


_P = TypeVar("_P", bound=Platform)


def running(kind: type[_P], **settings: str) -> Iterator[_P]:
    """A platform of its own with these settings, up until the end of the fixture that asked."""
    home = Path(tempfile.mkdtemp(prefix=f"bl-e2e-{os.getpid()}-"))
    home.chmod(0o711)
    running = kind(home)
    running.environment |= settings
    try:
        running.up()
        yield running
    finally:
        running.cli("stop", check=False)
        remove_instance(instance_name(home))
        shutil.rmtree(home)
        shutil.rmtree(running.repositories)


@pytest.fixture
def name() -> str:
    """A project's name that no other test uses."""
    return f"t{uuid4().hex[:8]}"
