"""Secrets as files: in memory on the host, mounted into the containers of one deployment, gone with it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from branchline.domain.config import Secret
from branchline.domain.environment import Environment
from branchline.domain.errors import PlatformBroke

INSIDE = "/run/secrets"
"""Where containers find them, as in Compose and Swarm."""

_IN_MEMORY = {"tmpfs", "ramfs"}


class SecretFiles:
    """One folder for each deployment, on the first of `roots` that is memory (tmpfs).

    Whoever runs the platform alone can enter its folder there. Inside containers every user can read the files, since
    nobody knows as whom an image runs its programs. After the machine was restarted they are written anew by whoever
    puts the containers back.
    """

    def __init__(self, instance: str, roots: tuple[Path, ...] = (Path("/run"), Path("/dev/shm"))) -> None:  # noqa: S108
        self._instance = instance
        self._roots = roots

    def write(self, environment: Environment, deployment: int, files: Mapping[str, Secret]) -> Path:
        """Write the files of a deployment; return their folder. Repeating changes nothing.

        Raises PlatformBroke: `no_memory_folder` where no root is in memory, `memory_folder_taken` where somebody else
        has made a folder of our name there, `memory_full`.
        """
        folder = self._own_folder() / environment.key / f"d{deployment}"
        try:
            for one in (folder.parent, folder):
                one.mkdir(mode=0o755, exist_ok=True)
            for name, secret in files.items():
                self._write(folder / name, secret.reveal())
        except OSError as error:
            raise PlatformBroke(
                f"The secrets of {environment.key} cannot be written: {error.strerror}.",
                code="memory_full",
                hint=f"Look at the room in {folder.parents[2]}; `df -h` shows it.",
            ) from None
        return folder

    def remove(self, environment: Environment, deployment: int) -> None:
        """Remove the files of a deployment."""
        for root in self._roots:
            shutil.rmtree(root / self._name / environment.key / f"d{deployment}", ignore_errors=True)

    def remove_all(self, environment: Environment) -> None:
        """Remove all files of an environment."""
        for root in self._roots:
            shutil.rmtree(root / self._name / environment.key, ignore_errors=True)

    def scratch(self) -> Path:
        """A folder in memory for what is needed for a moment, such as a build's secrets; it may not exist before."""
        folder = self._own_folder() / "scratch"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @property
    def _name(self) -> str:
        return f"branchline-{self._instance}"

    def _own_folder(self) -> Path:
        root = next((one for one in self._roots if _in_memory(one)), None)
        if root is None:
            raise PlatformBroke(
                f"None of {', '.join(map(str, self._roots))} is a file system in memory.",
                code="no_memory_folder",
                hint="Secrets as files are never written to a disk: mount a tmpfs at one of them.",
            )
        folder = root / self._name
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
            raise PlatformBroke(
                f"{folder} is there already, and it is not ours alone.",
                code="memory_folder_taken",
                hint="See who made it; remove it, and deploy again.",
            )
        return folder

    def _write(self, path: Path, text: str) -> None:
        data = text.encode(errors="surrogateescape")
        with suppress(OSError):
            if path.read_bytes() == data:
                return
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.write_bytes(data)
        fresh.chmod(0o444)
        fresh.replace(path)


def remove_instance_files(instance: str) -> None:
    """Remove whatever an instance of the platform has in memory."""
    for root in (Path("/run"), Path("/dev/shm")):  # noqa: S108
        shutil.rmtree(root / f"branchline-{instance}", ignore_errors=True)


def _in_memory(path: Path) -> bool:
    """Whether a folder lies in memory, by the mount that holds it."""
    try:
        place = path.resolve(strict=True)
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return False
    kinds = {fields[1]: fields[2] for fields in mounts if len(fields) > 2}
    nearest = next((str(one) for one in (place, *place.parents) if str(one) in kinds), "/")
    return kinds.get(nearest) in _IN_MEMORY
