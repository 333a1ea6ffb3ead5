"""Keeps the parts' logs small. They are open in the parts for appending, so they are copied away and emptied."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

LARGEST_LOG = 20_000_000
KEPT = 2


def rotate(folder: Path, largest: int = LARGEST_LOG, kept: int = KEPT) -> None:
    """Copy each log above so many bytes to `NAME.log.1` and empty it; `kept` older copies stay.

    What a part writes between the copy and the emptying is lost: that is the price of not having to tell it.
    """
    for log in folder.glob("*.log"):
        if log.is_symlink() or log.stat().st_size <= largest:
            continue
        copy = log.with_name(f"{log.name}.0")
        copy.touch(mode=0o600)
        shutil.copyfile(log, copy)
        os.truncate(log, 0)
        shift(copy, kept, log.name)


def shift(file: Path, kept: int, name: str = "") -> None:
    """Rename `file` to `NAME.1` (default: its own name), after `NAME.1` to `NAME.2` and so on; the oldest goes."""
    name = name or file.name
    for number in range(kept, 1, -1):
        younger = file.with_name(f"{name}.{number - 1}")
        if younger.exists():
            younger.replace(file.with_name(f"{name}.{number}"))
    file.replace(file.with_name(f"{name}.1"))
