"""Secrets as files: in memory on the host, mounted into the containers of one deployment, gone with it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from branchline.domain.config import Secret, check_key
from branchline.domain.environment import Environment
from branchline.domain.errors import PlatformBroke

_IN_MEMORY = {"tmpfs", "ramfs"}
_ROOT = 3
"""Which field of a line of mountinfo says what is mounted, by its path in its file system."""

_MOMENTARY = "scratch"
_STARTED = 19
"""Which field behind a process's name in its `stat` says when it was started."""

_REMOVED = "//deleted"
"""What Linux adds there to the path of a folder that was removed while it was mounted."""


class SecretFiles:
    """One folder for each service of a deployment, on the first of `roots` that is memory (tmpfs).

    Whoever runs the platform alone can enter its folder there. Inside containers every user can read the files, since
    nobody knows as whom an image runs its programs. After the machine was restarted they are written anew by whoever
    puts the containers back.
    """

    def __init__(self, instance: str, roots: tuple[Path, ...] = (Path("/run"), Path("/dev/shm"))) -> None:  # noqa: S108
        self._instance = instance
        self._roots = roots

    def write(self, environment: Environment, deployment: int, user: str, files: Mapping[str, Secret]) -> Path:
        """Write the files of one `user` in a deployment, a service or a command; return their folder.

        Repeating changes nothing.
        Raises BadInput (`bad_key`), PlatformBroke: `no_memory_folder` where no root is in memory and ours to use,
        `memory_folder_taken` where somebody else has made a folder of our name there, `memory_full`.
        """
        folder = self._own_folder() / environment.key / f"d{deployment}" / user
        try:
            for one in (folder.parent.parent, folder.parent, folder):
                one.mkdir(mode=0o755, exist_ok=True)
            for name, secret in files.items():
                self._write(folder / check_key(name), secret.reveal())
            self._write(_listing(folder), "\n".join(files))
        except OSError as error:
            raise _no_room(folder, error) from None
        return folder

    def remove(self, environment: Environment, deployment: int, user: str = "") -> None:
        """Remove the files of a deployment, or of one user in it."""
        for folder in self._mine():
            place = folder / environment.key / f"d{deployment}" / user
            shutil.rmtree(place, ignore_errors=True)
            if user:
                _listing(place).unlink(missing_ok=True)

    def remove_all(self, environment: Environment) -> None:
        """Remove all files of an environment."""
        for folder in self._mine():
            shutil.rmtree(folder / environment.key, ignore_errors=True)

    def whole(self, folder: Path) -> bool:
        """Whether the files that `write` has put into this folder last are all there."""
        return any(folder.is_relative_to(ours) for ours in self._mine()) and _whole(folder)

    def holds(self, folder: Path) -> bool:
        """Whether this is the place of a folder of ours, be it there or not."""
        return any(folder.is_relative_to(root / self._name) for root in self._roots)

    def lost_to(self, folder: Path, process: int) -> bool:
        """Whether a process looks into such a folder that was removed: what is written now it never sees.

        Where the kernel does not tell us about the process, no.
        """
        place = next((f"/{folder.relative_to(root)}{_REMOVED}" for root in self._roots if root in folder.parents), None)
        try:
            mounts = [line.split() for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines()]
        except OSError:
            return False
        return place is not None and any(len(fields) > _ROOT and fields[_ROOT].endswith(place) for fields in mounts)

    def deployments(self, environment: Environment) -> set[int]:
        """The deployments that have files here."""
        found = [path.name for folder in self._mine() for path in (folder / environment.key).glob("d*")]
        return {int(name[1:]) for name in found if name[1:].isdigit()}

    @contextmanager
    def for_a_moment(self, files: Mapping[str, Secret]) -> Iterator[dict[str, Path]]:
        """Files that this process alone needs, such as a build's secrets: each key's file, until the block ends.

        Raises what `write` does.
        """
        folder = self._own_folder() / _MOMENTARY / _life(os.getpid()) / uuid4().hex
        written = {key: folder / str(number) for number, key in enumerate(sorted(files))}
        try:
            try:
                folder.mkdir(mode=0o700, parents=True)
                for key, path in written.items():
                    path.touch(mode=0o600)
                    path.write_text(files[key].reveal())
            except OSError as error:
                raise _no_room(folder, error) from None
            yield written
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def forget_moments(self) -> None:
        """Remove what processes that were killed have left of theirs."""
        for folder in self._mine():
            for process in (folder / _MOMENTARY).glob("*"):
                pid, _, started = process.name.partition("-")
                if _life(pid) != process.name and (started or not Path("/proc", pid).exists()):
                    shutil.rmtree(process, ignore_errors=True)

    @property
    def _name(self) -> str:
        return f"branchline-{self._instance}"

    def _mine(self) -> list[Path]:
        """Our folders, wherever they are: never what somebody else has put in their place."""
        return [folder for root in self._roots if _ours(folder := root / self._name)]

    def root(self) -> Path:
        """The one that is used; raises PlatformBroke (`no_memory_folder`)."""
        in_memory = [root for root in self._roots if _in_memory(root)]
        root = next((one for one in in_memory if (one / self._name).exists() or os.access(one, os.W_OK)), None)
        if root is None:
            raise PlatformBroke(
                f"None of {', '.join(map(str, self._roots))} is a file system in memory that is ours to use.",
                code="no_memory_folder",
                hint="Secrets as files are never written to a disk: mount a tmpfs at one of them.",
            )
        return root

    def _own_folder(self) -> Path:
        folder = self.root() / self._name
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if not _ours(folder):
            raise PlatformBroke(
                f"{folder} is there already, and it is not ours alone.",
                code="memory_folder_taken",
                hint="See who made it; remove it, and deploy again.",
            )
        return folder

    def _write(self, path: Path, text: str) -> None:
        data = text.encode()
        with suppress(OSError):
            if path.read_bytes() == data:
                return
        fresh = path.with_name(f".{path.name}.new")  # of one name, so that a killed writer's is taken over
        fresh.unlink(missing_ok=True)
        fresh.write_bytes(data)
        fresh.chmod(0o444)
        fresh.replace(path)


def _no_room(folder: Path, error: OSError) -> PlatformBroke:
    return PlatformBroke(
        f"Secrets cannot be written: {error.strerror}.",
        code="memory_full",
        hint=f"Look at the room in {folder.parents[3]}; `df -h` shows it.",
    )


def _life(process: int | str) -> str:
    """A name for a process that no later one of its number has; one that runs no more has none."""
    try:
        about = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return f"{process}-{about.rpartition(')')[2].split()[_STARTED]}"


def _listing(folder: Path) -> Path:
    """Names the files that belong into a folder; beside it, where containers do not see it."""
    return folder.with_name(f"{folder.name}.names")


def _whole(folder: Path) -> bool:
    try:
        there = {path.name for path in folder.iterdir() if path.is_file()}
    except OSError:
        return False
    try:
        wanted = _listing(folder).read_text().split()
    except OSError:  # removed too, or written by a version that made none, and a folder for one file at least
        return bool(there)
    return there.issuperset(wanted)


def _ours(folder: Path) -> bool:
    """Whether it is a real folder that nobody but us can enter."""
    try:
        about = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o077


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
