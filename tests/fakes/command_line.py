"""The command line within the tests' own process: words in; exit status, output and errors out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from branchline.cli.main import main


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """Runs commands with an environment of its own: no login of whoever runs the tests gets in."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], folder: Path) -> None:
        self.patch = patch
        self.home = folder / "user"
        self.folder = folder / "here"
        self._capture = capture
        self.home.mkdir()
        self.folder.mkdir()
        patch.chdir(self.folder)
        for name in ("URL", "TOKEN", "HOME", "DEBUG", "SERVER_LISTEN"):
            patch.delenv(f"BRANCHLINE_{name}", raising=False)
        patch.setenv("BRANCHLINE_HOME", str(folder / "no-platform"))
        patch.setenv("HOME", str(self.home))
        patch.setenv("TZ", "UTC")
        for name in ("XDG_CONFIG_HOME", "DISPLAY", "WAYLAND_DISPLAY", "NO_COLOR"):
            patch.delenv(name, raising=False)

    def speak_to(self, url: str, token: str) -> None:
        self.patch.setenv("BRANCHLINE_URL", url)
        self.patch.setenv("BRANCHLINE_TOKEN", token)

    def __call__(self, *words: str) -> Ran:
        self._capture.readouterr()
        status = main(list(words))
        out, err = self._capture.readouterr()
        return Ran(status, out, err)
