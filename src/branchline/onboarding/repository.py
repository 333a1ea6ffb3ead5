"""A repository's folder as onboarding reads it: small text files by their path, and nothing outside of the folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

MAX_BYTES = 512 * 1024
MAX_FILES = 5000
IGNORED = frozenset(
    {"node_modules", "vendor", "dist", "build", "venv", "env", "site-packages", "__pycache__", "target"}
)


@dataclass(frozen=True)
class Repository:
    """A folder, or with `part` a folder within it; `branches` are those that git knows, `current` is checked out."""

    folder: Path
    branches: frozenset[str] = frozenset()
    current: str | None = None
    part: str = "."

    def within(self, part: str) -> Repository:
        """The same repository, looked at from a folder within."""
        return Repository(self.folder, self.branches, self.current, part)

    @property
    def name(self) -> str:
        """What the folder is called."""
        return self.folder.resolve().name

    def text(self, path: str) -> str | None:
        """What a file says; None where there is none, or none that onboarding should read."""
        file = self._inside(path)
        try:
            if file is None or not file.is_file() or file.stat().st_size > MAX_BYTES:
                return None
            return file.read_text(encoding="utf-8", errors="replace").removeprefix("\ufeff")
        except OSError:
            return None

    def json(self, path: str) -> dict[str, Any] | None:
        """An object in a JSON file; None for anything else."""
        text = self.text(path)
        try:
            content = json.loads(text) if text else None
        except (ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    def has(self, path: str) -> bool:
        """Whether there is a file of this path."""
        file = self._inside(path)
        return file is not None and file.is_file()

    def first(self, *paths: str) -> str | None:
        """The first of these paths that is a file."""
        return next((path for path in paths if self.has(path)), None)

    def folders(self) -> list[str]:
        """The folders at the top, without those that hold what others wrote."""
        root = self.folder / self.part
        return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not _ignored(entry.name))

    def files(self, *endings: str, depth: int = 4) -> Iterator[str]:
        """Paths of files with one of these endings, those at the top first."""
        root = self.folder / self.part
        seen = 0
        pending = [root]
        while pending:
            folder = pending.pop(0)
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in entries:
                seen += 1
                if seen > MAX_FILES:
                    return
                path = Path(entry.path).relative_to(root)
                if entry.is_dir(follow_symlinks=False):
                    if len(path.parts) < depth and not _ignored(entry.name):
                        pending.append(Path(entry.path))
                elif entry.name.endswith(endings) and entry.is_file(follow_symlinks=False):
                    yield path.as_posix()

    def _inside(self, path: str) -> Path | None:
        if PurePosixPath(path).is_absolute() or "\x00" in path:
            return None
        root = self.folder.resolve()
        try:
            file = (root / self.part / path).resolve()
        except (OSError, RuntimeError):
            return None
        return file if file.is_relative_to(root) else None


def _ignored(name: str) -> bool:
    return name.startswith(".") or name in IGNORED
