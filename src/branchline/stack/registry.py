"""The registry: Debian's `docker-registry` on loopback, storing in the home."""

from __future__ import annotations

from pathlib import Path

import yaml

from branchline.layout import Layout
from branchline.stack import binaries, files
from branchline.stack.asking import expect_ok
from branchline.stack.part import GO_LEAN, Part, plain_environment
from branchline.stack.process import Command, User


class Registry(Part):
    """Reached over 127.0.0.1 only, which Docker accepts without TLS."""

    name = "registry"

    def __init__(self, layout: Layout, user: User | None) -> None:
        self._layout = layout
        self._user = user
        self._folder = layout.home / "registry"

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._layout.ports.registry}"

    @property
    def data(self) -> Path:
        """Where the images lie."""
        return self._folder / "data"

    def prepare(self) -> None:
        files.folder(self.data, user=self._user, mode=0o700)
        files.write(self._folder / "config.yml", yaml.safe_dump(self._configuration()), user=self._user)

    def command(self) -> Command:
        return Command(
            (str(binaries.registry()), "serve", str(self._folder / "config.yml")),
            folder=self._folder,
            user=self._user,
            environment=plain_environment({**GO_LEAN, "OTEL_TRACES_EXPORTER": "none"}),
        )

    def reclaim_command(self) -> tuple[str, ...]:
        """Gives back the room of deleted images; what it makes or removes stays the account's that serves them."""
        collect = (str(binaries.registry()), "garbage-collect", str(self._folder / "config.yml"))
        if self._user is None:
            return collect
        # The kernel forgets whose death a process follows when its account changes.
        account = ("--pdeathsig=keep", f"--reuid={self._user.uid}", f"--regid={self._user.gid}", "--clear-groups")
        return ("setpriv", *account, "--", *collect)

    def check(self) -> None:
        expect_ok(self.endpoint, "/v2/")

    def _configuration(self) -> dict[str, object]:
        return {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            # No cache of blobs: after a garbage collection it serves images that are gone.
            "storage": {
                "filesystem": {"rootdirectory": str(self.data)},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": True, "age": "24h", "interval": "6h", "dryrun": False}},
            },
            "http": {"addr": self.endpoint, "secret": self._layout.key("registry.secret").reveal()},
            "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
        }
