"""The worker's sign of life: a file that it touches. `python -m shop.heartbeat` is its health check.

A worker has no port to knock at. It imports nothing of Django, so that a probe costs next to nothing.
"""

import sys
import tempfile
import time
from pathlib import Path

FILE = Path(tempfile.gettempdir()) / "worker.heartbeat"
MAX_AGE = 10.0


def beat() -> None:
    """Say: I live, and my last turn went well."""
    FILE.touch()


def age() -> float:
    """Seconds since the last sign of life; endless where there never was one."""
    return time.time() - FILE.stat().st_mtime if FILE.exists() else float("inf")


if __name__ == "__main__":
    seconds = age()
    if seconds > MAX_AGE:
        sys.exit(f"no sign of life for {seconds:.0f} s")
