"""A process in the background that goes on with what this one has loaded and prepared: it need not start up again."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from branchline.domain.errors import BranchlineError


def in_background(work: Callable[[], None], log: Path) -> int:
    """Do the work in a process and session of its own; return its pid. Errors go to the log.

    To be called while this process has one thread.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()
        os.chdir("/")
        _redirect(log)
        work()
        status = 0
    except BranchlineError as error:
        sys.stderr.write(f"{error.code}: {error.sentence} {error.hint}\n")
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)  # whatever the caller has in hand is for the other process to finish


def has_ended(child: int) -> bool:
    """Whether the process, a child of ours, has ended."""
    return os.waitpid(child, os.WNOHANG)[0] == child


def _redirect(log: Path) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    kept = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in ((0, nowhere), (1, nowhere), (2, kept)):
        os.dup2(source, target)
