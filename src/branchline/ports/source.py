"""The repositories of projects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from branchline.domain.changes import CodeChanges
from branchline.ports.basics import Interrupt, Log


@dataclass(frozen=True)
class Revision:
    """A commit that a ref pointed to. `ref` is a full name, `refs/heads/…` or `refs/tags/…`."""

    ref: str
    commit: str
    subject: str


class Source(Protocol):
    """The repositories of projects."""

    def resolve(self, project: str, repository: str, ref: str, commit: str | None = None) -> Revision:
        """Fetch and say what `ref` is: a full ref, or a short name (a branch is preferred to a tag).

        With `commit` (full or abbreviated to at least 7 digits) that commit, which must be reachable from the ref.
        Raises BadInput: `unknown_ref`, `unknown_commit`, `repository_unreachable`, `repository_refused` (asks for a
        password or a key that we do not have), each with what git said in the hint.
        """

    def read(self, project: str, commit: str, path: str) -> str | None:
        """The text of a file in a commit that was resolved before; None where there is none.

        Raises BadInput: `unreadable_file` (not UTF-8, or above 1 MiB), `unknown_commit`.
        """

    def checkout(self, project: str, repository: str, commit: str, folder: Path, log: Log, stop: Interrupt) -> None:
        """Put exactly this commit into `folder` (emptied first), submodules included; leaves no credentials there.

        Raises DeploymentFailed: `unknown_commit` (force-pushed away meanwhile), `submodule_failed`; PlatformBroke:
        `repository_unreachable`, `repository_refused`, `checkout_failed`.
        """

    def compare(self, project: str, before: str, after: str, endings: tuple[str, ...]) -> CodeChanges:
        """What two commits that were checked out here differ in; of files, those whose names end so.

        Only looks at what is here: no repository is asked. Raises PlatformBroke: `unknown_commit` where one of them is
        not here any more, `comparison_failed`.
        """
