"""The repositories of projects, by git: every project has a bare mirror, and checkouts come from there."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from branchline.adapters.git_command import Git, lacks_room, no_space, without_user
from branchline.adapters.git_compare import compare
from branchline.adapters.git_mirror import Mirror, locked
from branchline.adapters.git_modules import Submodule, submodules
from branchline.adapters.git_refs import find, next_commit, reachable, unknown_commit
from branchline.domain.changes import CodeChanges
from branchline.domain.errors import BadInput, DeploymentFailed, PlatformBroke
from branchline.domain.names import check_name
from branchline.ports import Interrupt, Log, Revision

_BESIDES = 1024 * 1024
"""Bytes that a commit's own text may take when a file of it is read."""

MAX_FILE = 1024 * 1024
"""Bytes of the largest file that `read` gives."""

_CHECKOUT_LIMIT = 1800.0
_DEPTH = 10
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BEGINNING = re.compile(r"[0-9a-f]{7,40}")


class GitSource:
    """Source by the git command, with mirrors in `folder`.

    `lender` has mirrors of somebody else, who often has what is to be checked out here: their objects are read, and
    nothing else of them, since that somebody may be less trusted than we are.
    """

    def __init__(self, folder: Path, lender: Path | None = None) -> None:
        self._folder = folder
        self._lender = lender
        self._git = Git(folder)

    def resolve(self, project: str, repository: str, ref: str, commit: str | None = None) -> Revision:
        """See ports.Source. Always asks the repository: a branch may have been force-pushed a moment ago."""
        if commit is not None and not _BEGINNING.fullmatch(commit):
            raise BadInput(
                f"{commit[:60]!r} is no commit.", code="unknown_commit", hint="Give 7 to 40 of its hexadecimal digits."
            )
        mirror = self._mirror(project)
        mirror.fetch(repository)
        full, tip, subject = find(mirror, ref)
        if commit is None or tip == commit:
            return Revision(full, tip, subject)
        return Revision(full, *reachable(mirror, full, tip, commit))

    def read(self, project: str, commit: str, path: str) -> str | None:
        """See ports.Source. Follows links within the commit. Raises BadInput (`unreadable_file`, `unknown_commit`)."""
        if re.search(r"[\x00-\x1f\ud800-\udfff]", path):
            return None
        mirror = self._mirror(project)
        if not _COMMIT.fullmatch(commit) or not mirror.path.is_dir():
            raise unknown_commit(commit)
        too_large = BadInput(f"{path} is larger than 1 MiB.", code="unreadable_file", hint="Make it smaller.")
        request = f"{commit}^{{commit}}\n{commit}:{path}\n".encode()
        try:
            said = mirror.ask(
                "cat-file", "--batch", "--follow-symlinks", stdin=request, limit=MAX_FILE + _BESIDES
            ).output
        except PlatformBroke as error:
            if error.code != "too_much_output":
                raise
            raise too_large from None
        known, rest = next_commit(said)
        if known is None:
            raise unknown_commit(commit)
        header, _, text = rest.partition(b"\n")
        kind = re.fullmatch(rb"[0-9a-f]{40,64} blob (\d+)", header)
        if kind is None:
            return None
        if int(kind[1]) > MAX_FILE:
            raise too_large
        text = text[: int(kind[1])]
        try:
            return text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadInput(
                f"{path} is not text in UTF-8: byte {error.start} fits no character.",
                code="unreadable_file",
                hint="Save it in UTF-8.",
            ) from None

    def compare(self, project: str, before: str, after: str, endings: tuple[str, ...]) -> CodeChanges:
        """See ports.Source. Raises PlatformBroke (`unknown_commit`, `comparison_failed`)."""
        names = [folder / f"{check_name(project, 'project')}.git" for folder in (self._lender, self._folder) if folder]
        for mirror in (Mirror(self._git, name) for name in names):
            if all(_COMMIT.fullmatch(one) and mirror.has(one) for one in (before, after)):
                return compare(mirror, before, after, endings)
        raise PlatformBroke(
            f"The commits {before[:12]} and {after[:12]} are not here together any more.",
            code="unknown_commit",
            hint="Was a branch force-pushed, and its old commits forgotten?",
        )

    def checkout(self, project: str, repository: str, commit: str, folder: Path, log: Log, stop: Interrupt) -> None:
        """See ports.Source.

        Raises DeploymentFailed (`unknown_commit`, `submodule_failed`) or PlatformBroke (`repository_unreachable`,
        `repository_refused`, `checkout_failed`).
        """
        if not _COMMIT.fullmatch(commit):
            raise unknown_commit(commit)
        mirror = self._that_has(project, repository, commit, log, stop)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, 30, stop) as lock:
            if lock is None:
                raise PlatformBroke(
                    f"{folder} is still being written to by another process.",
                    code="checkout_failed",
                    hint="Deploy again; if this lasts, look for git processes that hang.",
                )
            mirror = self._write(mirror, self._mirror(project), repository, commit, folder, lock, stop)
            self._add_submodules(project, mirror, repository, commit, folder, lock, log, stop, depth=0)

    def _that_has(self, project: str, repository: str, commit: str, log: Log, stop: Interrupt) -> Mirror:
        if self._lender is not None:
            lent = Mirror(self._git, self._mirror(project).path, self._lender / self._mirror(project).path.name)
            lent.ensure()
            if lent.has(commit):
                return lent
        mirror = self._mirror(project)
        try:
            found = _bring(mirror, repository, commit, stop, log)
        except BadInput as error:  # it was there when the deployment was asked for: nobody's input is at fault now
            raise PlatformBroke(error.sentence, hint=error.hint, code=error.code) from error
        if not found:
            raise DeploymentFailed(
                f"Commit {commit[:12]} is not in the repository any more.",
                code="unknown_commit",
                hint="Was its branch force-pushed or deleted meanwhile? Deploy what the branch holds now.",
            )
        return mirror

    def _mirror(self, project: str) -> Mirror:
        return Mirror(self._git, self._folder / f"{check_name(project, 'project')}.git")

    def _write(
        self, mirror: Mirror, own: Mirror, repository: str, commit: str, folder: Path, lock: int, stop: Interrupt
    ) -> Mirror:
        """Write a commit's files, out of the mirror or, where it lacks some, out of our own; return which it was."""
        try:
            self._populate(mirror, commit, folder, lock, stop)
        except PlatformBroke as error:
            if error.code != "checkout_failed":
                raise
            # Somebody who fetches now brings a commit before its files: this waits for him, and sees to the rest.
            self._fetch_again(own, repository, stop)
            self._populate(own, commit, folder, lock, stop)
            return own
        return mirror

    @staticmethod
    def _fetch_again(mirror: Mirror, repository: str, stop: Interrupt) -> None:
        try:
            mirror.fetch(repository, stop=stop, limit=300)
        except BadInput as error:
            raise PlatformBroke(error.sentence, hint=error.hint, code=error.code) from error

    def _populate(self, mirror: Mirror, commit: str, folder: Path, lock: int, stop: Interrupt) -> None:
        """Write a commit's files. No `.git` is needed for that but a place for the index, gone again at once.

        (Not `git archive`, which leaves out what is marked `export-ignore`; not a clone, which costs more.)
        """
        try:
            _empty(folder)
        except OSError as error:
            raise PlatformBroke(f"{folder} cannot be emptied: {error.strerror}.", code="checkout_failed") from error
        index = folder / ".git"  # no commit can hold a file of this name, so nothing clashes
        index.mkdir()
        try:
            answer = self._git.ask(
                f"--git-dir={mirror.path}",
                f"--work-tree={folder}",
                "read-tree",
                "--reset",
                "-u",
                commit,
                timeout=_CHECKOUT_LIMIT,
                variables={**mirror.variables, "GIT_INDEX_FILE": str(index / "index")},
                keep=[lock],
                stop=stop,
            )
        finally:
            shutil.rmtree(index, ignore_errors=True)
        if answer.exit_code:
            if lacks_room(folder, answer.errors):
                raise no_space(folder)
            raise PlatformBroke(
                f"Commit {commit[:12]} could not be checked out.",
                code="checkout_failed",
                hint=f"git said: {answer.errors.strip()[-600:]}",
            )

    def _add_submodules(
        self,
        project: str,
        mirror: Mirror,
        repository: str,
        commit: str,
        folder: Path,
        lock: int,
        log: Log,
        stop: Interrupt,
        depth: int,
    ) -> None:
        if not (folder / ".gitmodules").is_file():
            return
        for module in submodules(mirror, repository, commit):
            if depth == _DEPTH:
                raise _failed(module, "submodules are nested too deeply")
            target = folder / module.path
            root = folder.resolve()
            if target.resolve() != root / module.path or not target.resolve().is_relative_to(root):
                raise _failed(module, "its path leads through a link")
            log.write(f"Submodule {module.path} at {module.commit[:12]}")
            copy = Mirror(self._git, self._folder / f"{project}.modules" / f"{module.key}.git")
            copy.path.parent.mkdir(exist_ok=True)
            try:
                found = _bring(copy, module.url, module.commit, stop)
            except BadInput as error:
                raise _failed(module, error.sentence, error.hint) from error
            if not found:
                raise _failed(module, f"commit {module.commit[:12]} is not there")
            target.mkdir(parents=True, exist_ok=True)
            self._write(copy, copy, module.url, module.commit, target, lock, stop)
            self._add_submodules(project, copy, module.url, module.commit, target, lock, log, stop, depth + 1)


def _bring(mirror: Mirror, repository: str, commit: str, stop: Interrupt, log: Log | None = None) -> bool:
    """Whether the commit is in the mirror, after all was tried to get it there."""
    if mirror.has(commit):
        return True
    if log is not None:
        log.write(f"Fetching {without_user(repository)}")
    mirror.fetch(repository, stop=stop, limit=300)
    if mirror.has(commit):
        return True
    try:  # no branch holds it any more, but many servers still hand it out by its name
        mirror.fetch(repository, stop=stop, commit=commit)
    except PlatformBroke:  # this one does not
        return False
    return mirror.has(commit)


def _failed(module: Submodule, reason: str, hint: str = "") -> DeploymentFailed:
    return DeploymentFailed(
        f"Submodule {module.path} cannot be had: {reason[:1].lower()}{reason[1:].rstrip('.')}.",
        code="submodule_failed",
        hint=hint or "Look at .gitmodules, and at whether the submodule's commit was pushed.",
    )


def _empty(folder: Path) -> None:
    """Remove everything in a folder, but not the folder, which holds the lock."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink()
