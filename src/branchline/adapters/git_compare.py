"""What two commits in a mirror differ in: commits on either side, and files."""

from __future__ import annotations

from branchline.adapters.git_command import said
from branchline.adapters.git_mirror import Mirror
from branchline.domain.changes import MOST_COMMITS, CodeChanges, Commit, Commits, FileChange
from branchline.domain.errors import PlatformBroke

_FIELDS = ("%m", "%H", "%an", "%cI", "%s")
_LONGEST = 200
_MOST_OUTPUT = 32 * 1024 * 1024
_SECONDS = 10.0
"""That each question may take: a deployment waits for the answer, and does without one."""

_WHAT = {"A": FileChange.ADDED, "D": FileChange.REMOVED}
"""Whatever else git calls it, a file was there before and is there still."""


def compare(mirror: Mirror, before: str, after: str, endings: tuple[str, ...]) -> CodeChanges:
    """See ports.Source. Raises PlatformBroke (`comparison_failed`), also where the mirror lacks one of the commits."""
    came, went = _both_sides(mirror, before, after)
    return CodeChanges(came, went, _files(mirror, before, after, endings))


def _both_sides(mirror: Mirror, before: str, after: str) -> tuple[Commits, Commits]:
    """The commits that only `after` has, and those that only `before` has."""
    most = 2 * MOST_COMMITS
    found = _commits(mirror, most, f"{before}...{after}")
    if len(found) < most:
        came, went = ([one for side, one in found if side == mark] for mark in (">", "<"))
        return _newest(len(came), came), _newest(len(went), went)
    # Too many to have seen all of them, and perhaps those of one side only.
    counted = _ask(mirror, "rev-list", "--count", "--left-right", f"{before}...{after}").split()
    only = [_commits(mirror, MOST_COMMITS, f"{one}..{other}") for one, other in ((before, after), (after, before))]
    came, went = ([one for _, one in side] for side in only)
    return _newest(int(counted[1]), came), _newest(int(counted[0]), went)


def _newest(total: int, commits: list[Commit]) -> Commits:
    return Commits(total, tuple(commits[:MOST_COMMITS]))


def _commits(mirror: Mirror, most: int, which: str) -> list[tuple[str, Commit]]:
    """Newest first, each with the side (`<` or `>`) that it is on."""
    shape = "%x00".join(_FIELDS)
    words = (
        "log",
        "-z",
        "--no-show-signature",
        "--encoding=UTF-8",
        f"--max-count={most}",
        "--left-right",
        f"--format=tformat:{shape}",
    )
    parts = _ask(mirror, *words, which, "--").split("\0")
    rows = zip(*(parts[number :: len(_FIELDS)] for number in range(len(_FIELDS))), strict=False)
    return [(side, Commit(sha, _shown(author), at, _shown(subject))) for side, sha, author, at, subject in rows]


def _files(mirror: Mirror, before: str, after: str, endings: tuple[str, ...]) -> dict[str, FileChange]:
    words = ("diff-tree", "-r", "-z", "--no-renames", "--name-status", before, after, "--")
    parts = _ask(mirror, *words, *(f"*{ending}" for ending in endings)).split("\0")
    return {path: _WHAT.get(letter, FileChange.CHANGED) for letter, path in zip(parts[::2], parts[1::2], strict=False)}


def _ask(mirror: Mirror, *words: str) -> str:
    answer = mirror.ask(*words, limit=_MOST_OUTPUT, timeout=_SECONDS)
    if answer.exit_code:
        raise PlatformBroke(
            f"git could not compare the two commits: {said(answer.errors)}",
            code="comparison_failed",
            hint="Its mirror may be damaged: the next fetch mends it.",
        )
    return answer.output.decode(errors="replace")


def _shown(text: str) -> str:
    """On one line, fit to be shown and stored."""
    words = "".join(sign if sign.isprintable() else " " for sign in text).strip()
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"
