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
        for number in range(kept, 1, -1):
            younger = log.with_name(f"{log.name}.{number - 1}")
            if younger.exists():
                younger.replace(log.with_name(f"{log.name}.{number}"))
        copy = log.with_name(f"{log.name}.1")
        shutil.copyfile(log, copy)
        copy.chmod(0o600)
        os.truncate(log, 0)
