"""The program `branchline`: the entry point, which imports nothing that `--version` does not need."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn, TextIO

from branchline import __version__

BROKEN_PIPE = 141
INTERRUPTED = 130


def run() -> NoReturn:
    """The entry point."""
    # httpx would load its own command line (rich, pygments, click) beside its client, for twice the client's time.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    status = main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    sys.exit(status)


def main(words: list[str]) -> int:
    """Run one command; return its exit status. Prints errors, and never raises for anything a person can cause."""
    if words == ["--version"]:
        sys.stdout.write(f"branchline {__version__}\n")
        return 0
    for stream in (sys.stdout, sys.stderr):
        _never_choke(stream)
    try:
        from branchline.cli.commands import invoke  # noqa: PLC0415 `--version` does without

        status = invoke(words)
        sys.stdout.flush()
    except BrokenPipeError:
        _close_quietly()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _never_choke(stream: TextIO) -> None:
    """A terminal or pipe that cannot carry a letter gets a substitute for it."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure:
        reconfigure(errors="replace")


def _close_quietly() -> None:
    """Nobody reads any more: let what is still in the buffers vanish rather than fail again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
