"""A bare copy of a repository's branches and tags, safe against others who use it and against kill -9."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from branchline.adapters.git_command import Git, complaint, lacks_room, no_space, without_user
from branchline.adapters.process import Answer
from branchline.domain.errors import BadInput, PlatformBroke, TimedOut
from branchline.ports import Interrupt

FETCH_LIMIT = 30.0
"""Seconds that a fetch may take."""

FIRST_FETCH_LIMIT = 600.0
"""Seconds that the first fetch may take, which brings the whole history."""

QUICK = 30.0
"""Seconds that any command without the network may take."""

_REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_LOCKED = re.compile(r"Unable to create '.*\.lock'|\.lock: File exists")
_CORRUPT = re.compile(
    r"^(?!remote:).*(?:is corrupt|object file .* is empty|bad object|unable to read (?:tree|sha1 file)"
    r"|did not send all necessary objects|inflate: data stream error|packfile .* (?:cannot be|does not)"
    r"|not a git repository|broken ref|Failed to traverse|bad (?:tree|pack|index))",
    re.MULTILINE,
)


@contextmanager
def locked(path: Path, timeout: float, stop: Interrupt | None = None) -> Iterator[int | None]:
    """Hold a file (or folder) for ourselves; gives its descriptor, or None where others held it all the time.

    A child that gets the descriptor holds the lock too: as long as it lives, nobody else gets in.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + timeout
        while True:
            if stop is not None:
                stop.check()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < end:
                    time.sleep(0.02)
                    continue
                yield None
            else:
                yield descriptor
            return
    finally:
        os.close(descriptor)


class Mirror:
    """One repository's mirror, in a folder that ends in `.git`; beside it lie its two lock files."""

    def __init__(self, git: Git, path: Path, lender: Path | None = None) -> None:
        """`lender` is a mirror of somebody else, whose objects are read as if they were here.

        Nothing else of it is: git does what the settings of a repository say, and runs programs that they name.
        """
        self.path = path
        self._lent = lender / "objects" if lender else None
        self._git = git
        self._busy = path.with_suffix(".lock")
        self._tidying = path.with_suffix(".gc")

    def ask(
        self, *words: str, stdin: bytes | None = None, limit: int = 8 * 1024 * 1024, timeout: float = QUICK
    ) -> Answer:
        """Call git in the mirror, for something that takes no network."""
        return self._git.ask(
            f"--git-dir={self.path}", *words, timeout=timeout, stdin=stdin, limit=limit, variables=self.variables
        )

    @property
    def variables(self) -> dict[str, str]:
        """What git must be told besides where this is, to read here; not to fetch, which would miss what is lent."""
        return {"GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self._lent)} if self._lent else {}

    def has(self, commit: str) -> bool:
        """Whether a commit is here."""
        # What a small fetch brought lies in a file of its own, which is quicker looked for than git is started.
        places = [place for place in (self._lent, self.path / "objects") if place]
        return any((place / commit[:2] / commit[2:]).is_file() for place in places) or (
            self.path.is_dir() and self.ask("cat-file", "-e", f"{commit}^{{commit}}").exit_code == 0
        )

    def ensure(self) -> None:
        """Make an empty mirror where there is none."""
        if not (self.path / "HEAD").is_file():
            with locked(self._busy, QUICK) as lock:
                if lock is not None:  # else somebody makes it, and fetches
                    self._make(lock)

    def fetch(
        self, repository: str, *, limit: float = FETCH_LIMIT, stop: Interrupt | None = None, commit: str | None = None
    ) -> None:
        """Make the mirror's branches and tags those of the repository; with `commit`, get just this commit.

        Raises BadInput (`repository_unreachable`, `repository_refused`) or PlatformBroke (`no_space` among others).
        """
        try:
            self._bring_up_to_date(repository, limit, stop, commit)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise no_space(self.path.parent) from error

    def _bring_up_to_date(self, repository: str, limit: float, stop: Interrupt | None, commit: str | None) -> None:
        with locked(self._busy, limit, stop) as lock:
            if lock is None:
                raise PlatformBroke(
                    f"{without_user(repository)} is being fetched for somebody else, and that takes long.",
                    code="repository_busy",
                    hint="Try again in a minute.",
                )
            if os.fstat(lock).st_size:  # whoever fetched last was killed; none of his children is left, says the lock
                self._sweep()
            os.pwrite(lock, b"fetching\n", 0)
            self._make(lock)
            wanted = (commit,) if commit else _REFS
            answer = self._fetch(repository, wanted, lock, limit, stop)
            if answer.exit_code and _LOCKED.search(answer.errors):
                self._sweep()
                answer = self._fetch(repository, wanted, lock, limit, stop)
            if answer.exit_code and _CORRUPT.search(answer.errors):
                shutil.rmtree(self.path)
                self._make(lock)
                answer = self._fetch(repository, wanted, lock, limit, stop)
            if answer.exit_code and lacks_room(self.path.parent, answer.errors):
                self._sweep()  # what was begun takes the room that others need
                raise no_space(self.path.parent)
            if answer.exit_code:
                raise complaint(repository, answer.errors)
            os.ftruncate(lock, 0)
        if self._untidy():
            threading.Thread(target=self.tidy, name=f"tidy {self.path.name}", daemon=True).start()

    def _fetch(
        self, repository: str, wanted: tuple[str, ...], lock: int, limit: float, stop: Interrupt | None
    ) -> Answer:
        here = f"--git-dir={self.path}"
        try:
            if not self._filled():
                # Whether anybody answers shows soon; only then the whole history may take its time.
                probe = self._git.ask(
                    "ls-remote", "--quiet", "--", repository, "HEAD", timeout=limit, keep=[lock], stop=stop
                )
                if probe.exit_code:
                    return probe
                limit = max(limit, FIRST_FETCH_LIMIT)
            options = ["--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"]
            prune = ["--prune"] if wanted == _REFS else []
            return self._git.ask(
                here, "fetch", *options, *prune, "--", repository, *wanted, timeout=limit, keep=[lock], stop=stop
            )
        except TimedOut as error:
            raise BadInput(
                f"{without_user(repository)} did not answer within {limit:g} seconds.",
                code="repository_unreachable",
                hint="Try again, and see whether the repository can be reached from the platform's machine.",
            ) from error

    def tidy(self) -> None:
        """Let git pack what many small fetches left, unless somebody does so already."""
        with locked(self._tidying, 0) as lock:
            if lock is not None:
                self._git.ask(f"--git-dir={self.path}", "gc", "--auto", "--quiet", timeout=1800, keep=[lock])

    def _make(self, lock: int) -> None:
        if (self.path / "HEAD").is_file():
            return
        new = self.path.with_suffix(".new")
        for left in (new, self.path):
            shutil.rmtree(left, ignore_errors=True)
        answer = self._git.ask("init", "--quiet", "--bare", "--template=", str(new), timeout=QUICK, keep=[lock])
        if answer.exit_code and lacks_room(self.path.parent, answer.errors):
            raise no_space(new.parent)
        if answer.exit_code:
            raise PlatformBroke(f"git cannot make a mirror in {new.parent}: {answer.errors.strip()}")
        new.rename(self.path)

    def _filled(self) -> bool:
        return any((self.path / "objects" / "pack").glob("*.pack")) or any(self.path.glob("objects/??"))

    def _untidy(self) -> bool:
        """Git's own rule for `gc --auto`, so that git need not be started to apply it."""
        packs = sum(1 for _ in (self.path / "objects" / "pack").glob("*.pack"))
        loose = sum(1 for _ in (self.path / "objects" / "17").glob("*"))
        return packs > 50 or loose > 27

    def _sweep(self) -> None:
        """Remove what a killed git left; called when nobody else fetches."""
        with locked(self._tidying, 0) as lock:
            if lock is None:  # a living git packs, and what lies here may be its
                return
            for left in (
                *self.path.glob("*.lock"),
                *self.path.glob("refs/**/*.lock"),
                *self.path.glob("objects/pack/tmp_*"),
                *self.path.glob("objects/tmp_objdir-*"),
            ):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)
