"""Files and folders of the home: written in one move, and owned by who needs them."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from branchline.stack.process import User


def write(
    path: Path, content: str | bytes, *, user: User | None = None, mode: int = 0o600, lasting: bool = True
) -> None:
    """Put the file in place in one move; after a crash it is there whole or not at all.

    With `lasting` it also outlives a power cut. Safe in a folder that an unprivileged account can write to: no link
    that somebody placed there is followed.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            if user:
                os.fchown(handle, user.uid, user.gid)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if lasting:
                os.fsync(handle)
        partial.replace(path)
        if lasting:
            _keep_names(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only one, of all processes and threads, who has this file's lock; it ends with the process at the latest.

    Raises BlockingIOError where somebody else has it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def folder(path: Path, *, user: User | None = None, mode: int = 0o711) -> Path:
    """Make sure of a folder with this mode and owner (None: ourselves)."""
    path.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(handle, mode)
        if user:
            os.fchown(handle, user.uid, user.gid)
    finally:
        os.close(handle)
    return path


def _keep_names(path: Path) -> None:
    """Make what was renamed in a folder outlive a power cut: what a key has sealed needs its file."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
