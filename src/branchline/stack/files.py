"""Files and folders of the home: written in one move, and owned by who needs them."""

from __future__ import annotations

import os
import secrets
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
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


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
