"""The keys that OpenBao unseals itself with: which there are is all in the names of their files.

| under `keys/` | OpenBao starts with |
|---|---|
| openbao-seal.key | the first key, which is made with the platform |
| openbao-seal.2.key, and one with a lower number | both: it opens what the old one sealed, and seals it anew |
| openbao-seal.2.key, and a retired one | the new key alone, as a trial: the retired one comes back if that fails |
| openbao-seal.2.key | the new key alone |
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from branchline.stack import files
from branchline.stack.process import User

FIRST = "openbao-seal.key"
RETIRED = ".retired"
_NAME = re.compile(r"openbao-seal(?:\.(\d+))?\.key")


@dataclass(frozen=True, order=True)
class SealKey:
    """One key. OpenBao writes down the id beside what it seals, so a key keeps it for life."""

    number: int
    path: Path

    @property
    def id(self) -> str:
        """What OpenBao knows it by."""
        return str(self.number) if self.number > 1 else "first"


def in_use(folder: Path) -> list[SealKey]:
    """What OpenBao starts with, the newest first: two while a key is being rotated. Empty before the first start."""
    return _named(folder, "")[:2]


def retired(folder: Path) -> list[SealKey]:
    """The keys that OpenBao should not need any more, but for which that is not proven yet."""
    return _named(folder, RETIRED)


def make(folder: Path, user: User | None) -> SealKey:
    """Make a key that is newer than all others, for OpenBao to read, which runs as `user`."""
    number = max((key.number for key in [*in_use(folder), *retired(folder)]), default=0) + 1
    made = SealKey(number, folder / (f"openbao-seal.{number}.key" if number > 1 else FIRST))
    files.write(made.path, os.urandom(32), user=user)
    return made


def retire(key: SealKey) -> None:
    """Let OpenBao do without this key from its next start on."""
    key.path.rename(key.path.with_name(key.path.name + RETIRED))


def reinstate(key: SealKey) -> None:
    """Let OpenBao have a retired key again."""
    key.path.rename(key.path.with_name(key.path.name.removesuffix(RETIRED)))


def _named(folder: Path, suffix: str) -> list[SealKey]:
    found = []
    for path in folder.iterdir():
        if path.name.endswith(suffix) and (name := _NAME.fullmatch(path.name.removesuffix(suffix))):
            found.append(SealKey(int(name[1] or 1), path))
    return sorted(found, reverse=True)
