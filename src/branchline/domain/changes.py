"""What changes with a deployment, against what was live when it began: commits, config keys, database migrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from branchline.domain.config import Secret
from branchline.domain.layers import HIDDEN, Document, Layer, pinned
from branchline.domain.migrations import is_migration

MOST_COMMITS = 100
"""Commits of each direction that are listed, the newest; all of them are counted."""

MOST_MIGRATIONS = 200
"""Migrations that are listed; all of them are counted."""


class FileChange(StrEnum):
    """What became of a file."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True)
class Commit:
    """One commit. `at` is when it was committed, in ISO 8601 with its own time zone."""

    sha: str
    author: str
    at: str
    subject: str


@dataclass(frozen=True)
class Commits:
    """How many, and the newest MOST_COMMITS of them, newest first."""

    total: int = 0
    newest: tuple[Commit, ...] = ()


@dataclass(frozen=True)
class CodeChanges:
    """The way from one commit to another. `went` are those that only the former has: it went back, or sideways."""

    came: Commits
    went: Commits
    files: Mapping[str, FileChange]


@dataclass(frozen=True)
class LayerChanges:
    """What two pinned versions of one layer differ in: names of keys. `unknown` says why that cannot be told."""

    layer: str
    before: int
    after: int
    set: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unknown: str = ""


@dataclass(frozen=True)
class Migration:
    """A file that changes a database, and what became of it."""

    path: str
    what: FileChange


@dataclass(frozen=True)
class Changes:
    """All of it. `since` is the deployment that was live; None where there was none, and nothing to compare with.

    `unknown` says why commits and migrations could not be found out; `config_unknown` the same of all config.
    """

    since: int | None = None
    before: str = ""
    came: Commits = field(default_factory=Commits)
    went: Commits = field(default_factory=Commits)
    migrations_total: int = 0
    migrations: tuple[Migration, ...] = ()
    config: tuple[LayerChanges, ...] = ()
    unknown: str = ""
    config_unknown: str = ""

    def with_code(self, code: CodeChanges) -> Changes:
        """The same, with what the two commits differ in."""
        found = [Migration(path, what) for path, what in sorted(code.files.items()) if is_migration(path)]
        return replace(
            self,
            came=code.came,
            went=code.went,
            migrations_total=len(found),
            migrations=tuple(found[:MOST_MIGRATIONS]),
        )

    @property
    def keys(self) -> list[str]:
        """The names of all keys that any layer says something else of now."""
        named = ((*one.set, *one.changed, *one.hidden, *one.removed) for one in self.config)
        return sorted({key for names in named for key in names})

    def __str__(self) -> str:
        """How much it is, on one line: `since deployment 41: 3 commits, 2 config keys, 1 migration`."""
        if self.since is None:
            return "the first release here"
        commits = _counted(self.came.total, "commit") + (f" and {self.went.total} back" if self.went.total else "")
        keys = _counted(len(self.keys), "config key")
        parts = [
            "commits unknown" if self.unknown else commits,
            "config keys unknown" if self.config_unknown or any(one.unknown for one in self.config) else keys,
            "" if self.unknown else _counted(self.migrations_total, "migration"),
        ]
        return f"since deployment {self.since}: {', '.join(part for part in parts if part)}"

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        plain: dict[str, Any] = _JSON.dump_python(self, mode="json")
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Changes:
        """What `to_json` made, also where a newer version wrote down more than this one knows."""
        return _JSON.validate_python(plain)


_JSON = TypeAdapter(Changes)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def layers_that_differ(before: Mapping[str, int], after: Mapping[str, int]) -> dict[Layer, tuple[int, int]]:
    """The layers of which two deployments pinned another version, lowest first, with both versions.

    A layer that one of them does not have at all counts as empty there: version 0.
    """
    both = {layer: (before.get(layer.path, 0), after.get(layer.path, 0)) for layer in pinned({**before, **after})}
    return {layer: versions for layer, versions in both.items() if versions[0] != versions[1]}


def compare_layer(before: Document, after: Document) -> LayerChanges:
    """What two versions of a layer differ in. A key that is hidden now counts as hidden, whatever it was."""
    given: list[str] = []
    changed: list[str] = []
    hidden: list[str] = []
    removed: list[str] = []
    for key in sorted({*before.entries, *after.entries}):
        was, now = before.entries.get(key), after.entries.get(key)
        if was == now:
            continue
        if now is None:
            removed.append(key)
        elif now is HIDDEN:
            hidden.append(key)
        else:
            (changed if isinstance(was, Secret) else given).append(key)
    return LayerChanges(
        after.layer.name,
        before.version,
        after.version,
        set=tuple(given),
        changed=tuple(changed),
        hidden=tuple(hidden),
        removed=tuple(removed),
    )
