"""One platform for all end-to-end tests of a session; every test brings projects of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from branchline.stack.first_start import instance_name
from branchline.stack.removal import remove_instance
from tests.e2e.platform import Platform


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    home = Path(tempfile.mkdtemp(prefix=f"bl-e2e-{os.getpid()}-"))
    home.chmod(0o711)
    running = Platform(home)
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
