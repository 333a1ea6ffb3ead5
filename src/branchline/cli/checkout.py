"""What git says about the folder that a command is given in."""

from __future__ import annotations

import subprocess
from pathlib import Path

GIT_SECONDS = 10.0


def current_branch(folder: Path) -> str | None:
    """The branch that is checked out there; None outside of a repository, or where no branch is checked out."""
    return _git(folder, "symbolic-ref", "--quiet", "--short", "HEAD")


def head(folder: Path) -> str | None:
    """The commit that is checked out there, if any."""
    return _git(folder, "rev-parse", "--quiet", "--verify", "HEAD")


def origin(folder: Path) -> str | None:
    """The address of the remote `origin`, if there is one."""
    return _git(folder, "config", "--get", "remote.origin.url")


def branches(folder: Path) -> set[str]:
    """The names of all branches, local ones and those of `origin`."""
    listed = _git(folder, "for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes/origin") or ""
    names = (line.removeprefix("refs/heads/").removeprefix("refs/remotes/origin/") for line in listed.splitlines())
    return {name for name in names if name != "HEAD"}


def top(folder: Path) -> Path | None:
    """The top of the repository that the folder lies in."""
    found = _git(folder, "rev-parse", "--show-toplevel")
    return Path(found) if found else None


def is_repository(folder: Path) -> bool:
    """Whether the folder lies in a git repository."""
    return _git(folder, "rev-parse", "--git-dir") is not None


def _git(folder: Path, *words: str) -> str | None:
    try:
        asked = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None
