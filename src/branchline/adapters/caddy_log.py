"""Counts requests in Caddy's access log, from a moment on and across rolled files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from branchline.ports import Traffic

_CLOSE = 64 * 1024
"""Bytes that are read through rather than searched."""

_DISORDER = 1.0
"""Seconds by which lines may be out of order: Caddy takes the time first and writes afterwards."""


class AccessLog:
    """The access log at `path` and what was rolled off it. A mark is a time, so that rolling does not matter to it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self) -> int:
        """Now, in microseconds since 1970."""
        return time.time_ns() // 1000

    def count(self, hostnames: Sequence[str], since: int) -> Traffic:
        """Requests that began after the mark and were answered, and how many of them with 5xx.

        A request that began before the mark may have gone to what was live before, so it does not count.
        """
        moment = since / 1e6
        names = {hostname.lower() for hostname in hostnames}
        needles = [name.encode() for name in names]
        requests = errors = 0
        for file in self._files(moment - _DISORDER):
            _seek(file, moment - _DISORDER)
            for line in file:
                # Most lines are of other environments: not worth parsing.
                if not any(needle in line.lower() for needle in needles):
                    continue
                entry = _entry(line)
                if entry and _hostname(entry) in names and entry["ts"] - entry["duration"] >= moment:
                    requests += 1
                    errors += entry["status"] >= 500
        return Traffic(requests, errors)

    def _files(self, moment: float) -> Iterator[BinaryIO]:
        """The files that were written to since, open, each once.

        The current one comes first. When it is rolled meanwhile, it turns up again under its new name and is known.
        """
        seen = set()
        for paths in ([self._path], self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}")):
            for path in paths:
                with suppress(FileNotFoundError), path.open("rb") as file:
                    state = os.fstat(file.fileno())
                    if state.st_ino not in seen and state.st_mtime >= moment:
                        seen.add(state.st_ino)
                        yield file


def _seek(file: BinaryIO, moment: float) -> None:
    """Go to the beginning of a line not far before the first one of the moment, by bisection."""
    low, high = 0, os.fstat(file.fileno()).st_size
    while high - low > _CLOSE:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline()
        entry = _entry(file.readline())
        if entry and entry["ts"] < moment:
            low = middle
        else:
            high = middle
    file.seek(low)
    if low:
        file.readline()


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line of the log; None for one that is only half written yet."""
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return entry


def _hostname(entry: dict[str, Any]) -> str:
    """The hostname that was asked for, without port, in lower case and without a dot at its end."""
    host: str = entry["request"]["host"]
    return host.partition(":")[0].lower().removesuffix(".")
