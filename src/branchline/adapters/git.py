"""The repositories of projects, by git: every project has a bare mirror, and checkouts come from there."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from pathlib import Path

from branchline.adapters.git_command import Git, lacks_room, no_space, without_user
from branchline.adapters.git_mirror import Mirror, locked
from branchline.adapters.git_modules import Submodule, submodules
from branchline.domain.environment import BRANCH, TAG, short
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
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]|\.\.|@\{|//|^@$|(^|/)[.-]|/$|\.$|\.lock(/|$)")


class GitSource:
    """Source by the git command, with mirrors in `folder` (which no other reader needs to share)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._git = Git(folder)

    def resolve(self, project: str, repository: str, ref: str, commit: str | None = None) -> Revision:
        """See ports.Source. Always asks the repository: a branch may have been force-pushed a moment ago."""
        if commit is not None and not _BEGINNING.fullmatch(commit):
            raise BadInput(
                f"{commit[:60]!r} is no commit.", code="unknown_commit", hint="Give 7 to 40 of its hexadecimal digits."
            )
        mirror = self._mirror(project)
        mirror.fetch(repository)
        full, tip, subject = _find(mirror, ref)
        if commit is None or tip == commit:
            return Revision(full, tip, subject)
        return Revision(full, *_reachable(mirror, full, tip, commit))

    def read(self, project: str, commit: str, path: str) -> str | None:
        """See ports.Source. Follows links within the commit. Raises BadInput (`unreadable_file`, `unknown_commit`)."""
        if re.search(r"[\x00-\x1f\ud800-\udfff]", path):
            return None
        mirror = self._mirror(project)
        if not _COMMIT.fullmatch(commit) or not mirror.path.is_dir():
            raise _unknown_commit(commit)
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
        known, rest = _next_commit(said)
        if known is None:
            raise _unknown_commit(commit)
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

    def checkout(self, project: str, repository: str, commit: str, folder: Path, log: Log, stop: Interrupt) -> None:
        """See ports.Source.

        Raises DeploymentFailed (`unknown_commit`, `submodule_failed`) or PlatformBroke (`repository_unreachable`,
        `repository_refused`, `checkout_failed`).
        """
        if not _COMMIT.fullmatch(commit):
            raise _unknown_commit(commit)
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
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, 30, stop) as lock:
            if lock is None:
                raise PlatformBroke(
                    f"{folder} is still being written to by another process.",
                    code="checkout_failed",
                    hint="Deploy again; if this lasts, look for git processes that hang.",
                )
            try:
                self._populate(mirror, commit, folder, lock, stop)
            except PlatformBroke as error:
                if error.code != "checkout_failed":
                    raise
                # Somebody who fetches now brings a commit before its files: this waits for him, and sees to the rest.
                self._fetch_again(mirror, repository, stop)
                self._populate(mirror, commit, folder, lock, stop)
            self._add_submodules(project, mirror, repository, commit, folder, lock, log, stop, depth=0)

    def _mirror(self, project: str) -> Mirror:
        return Mirror(self._git, self._folder / f"{check_name(project, 'project')}.git")

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
                variables={"GIT_INDEX_FILE": str(index / "index")},
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
            if target.resolve() != folder.resolve() / module.path:
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
            self._populate(copy, module.commit, target, lock, stop)
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


def _find(mirror: Mirror, ref: str) -> tuple[str, str, str]:
    """Full name, commit and subject of a ref; a branch is preferred to a tag."""
    full = [ref] if ref.startswith((BRANCH, TAG)) else [BRANCH + ref, TAG + ref]
    if ref and not _BAD_REF.search(ref) and len(ref) < 4000:
        request = "".join(f"{name}^{{commit}}\n" for name in full).encode()
        answer = mirror.ask("cat-file", "--batch", stdin=request, limit=32 * 1024 * 1024).output
        for name in full:
            commit, rest = _next_commit(answer)
            if commit is not None:
                return name, *commit
            answer = rest
    raise _unknown_ref(mirror, ref)


def _next_commit(batch: bytes) -> tuple[tuple[str, str] | None, bytes]:
    """The first commit (id, subject) of what `cat-file --batch` said, or None where it was missing; and the rest."""
    header, _, rest = batch.partition(b"\n")
    found = re.fullmatch(rb"([0-9a-f]{40}) commit (\d+)", header)
    if found is None:
        return None, rest
    size = int(found[2])
    message = rest[:size].partition(b"\n\n")[2].lstrip(b"\n").partition(b"\n\n")[0]
    words = " ".join(message.decode("utf-8", "replace").split())
    subject = "".join(sign for sign in words if sign.isprintable())
    return (found[1].decode(), subject if len(subject) <= 200 else subject[:199] + "…"), rest[size + 1 :]


def _reachable(mirror: Mirror, ref: str, tip: str, beginning: str) -> tuple[str, str]:
    """The one commit that begins so and is an ancestor of the tip: its full name and subject."""
    if len(beginning) == 40:
        candidates = [beginning]
    else:
        candidates = mirror.ask("rev-parse", f"--disambiguate={beginning}").output.decode().split()
    request = "".join(f"{name}^{{commit}}\n" for name in candidates).encode()
    answer = mirror.ask("cat-file", "--batch", stdin=request, limit=32 * 1024 * 1024).output if candidates else b""
    found = []
    for name in candidates:
        commit, answer = _next_commit(answer)
        # An annotated tag that begins so would be peeled to its commit: that is not what was named.
        if commit is None or commit[0] != name:
            continue
        if mirror.ask("merge-base", "--is-ancestor", name, tip).exit_code == 0:
            found.append(commit)
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(
            f"{beginning} is the beginning of {len(found)} commits.", code="unknown_commit", hint="Give more digits."
        )
    raise BadInput(
        f"Commit {beginning[:12]} is not part of {short(ref)}.",
        code="unknown_commit",
        hint=f"It points to {tip[:12]} now. Push the commit first, or name a ref that holds it.",
    )


def _unknown_ref(mirror: Mirror, ref: str) -> BadInput:
    listed = mirror.ask("for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags").output.decode().split("\n")
    branches = [name.removeprefix(BRANCH) for name in listed if name.startswith(BRANCH)]
    tags = [name.removeprefix(TAG) for name in listed if name.startswith(TAG)]
    name = ref.removeprefix(BRANCH).removeprefix(TAG)
    shown = name if len(name) <= 80 else name[:80] + "…"
    return BadInput(
        f"The repository has no branch or tag {shown!r}.", code="unknown_ref", hint=suggest(name, branches, tags)
    )


def suggest(wanted: str, branches: list[str], tags: list[str]) -> str:
    """What a person may have meant who named a ref that is not there, and what there is."""
    if not branches and not tags:
        return "The repository is empty: push a commit first."
    hints = []
    if near := difflib.get_close_matches(wanted[:200], [*branches, *tags][:5000], n=3, cutoff=0.6):
        hints.append(f"Did you mean {' or '.join(near)}?")
    for what, names in (("branch", branches), ("tag", tags)):
        if names:
            some = ", ".join(names[:8])
            hints.append(f"{len(names)} {what}{'' if len(names) == 1 else 'es' if what == 'branch' else 's'}: {some}")
            hints[-1] += ", …" if len(names) > 8 else "."
    return " ".join(hints)


def _unknown_commit(commit: str) -> BadInput:
    return BadInput(
        f"Commit {commit[:40]!r} is not known here.", code="unknown_commit", hint="Deploy its branch or tag again."
    )


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
