"""Small disks for tests: a folder on a size-limited tmpfs, which can be filled without harm to the machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SmallDisk:
    """A file system of its own at `folder`."""

    folder: Path

    def fill(self, leave: int = 0) -> None:
        """Take all the room but for `leave` bytes."""
        room = os.statvfs(self.folder)
        with (self.folder / "ballast").open("ab", buffering=0) as file, suppress(OSError):
            left = room.f_bavail * room.f_frsize - leave
            while left > 0:
                left -= file.write(b"\0" * min(left, 1 << 20))

    def empty(self) -> None:
        """Give the room back."""
        (self.folder / "ballast").unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[SmallDisk]:
    """Mount one over a folder, which is made where it is missing. Only root can; others skip the test."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
