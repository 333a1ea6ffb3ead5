"""The registry: Debian's `docker-registry` on loopback, storing in the home."""

from __future__ import annotations

import yaml

from branchline.layout import Layout
from branchline.stack import binaries, files
from branchline.stack.asking import expect_ok
from branchline.stack.part import Part, plain_environment
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

    def prepare(self) -> None:
        files.folder(self._folder / "data", user=self._user, mode=0o700)
        files.write(self._folder / "config.yml", yaml.safe_dump(self._configuration()), user=self._user)

    def command(self) -> Command:
        return Command(
            (str(binaries.registry()), "serve", str(self._folder / "config.yml")),
            folder=self._folder,
            user=self._user,
            environment=plain_environment({"OTEL_TRACES_EXPORTER": "none"}),
        )

    def check(self) -> None:
        expect_ok(self.endpoint, "/v2/")

    def _configuration(self) -> dict[str, object]:
        return {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            # No cache of blobs: after a garbage collection it serves images that are gone.
            "storage": {
                "filesystem": {"rootdirectory": str(self._folder / "data")},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": True, "age": "24h", "interval": "6h", "dryrun": False}},
            },
            "http": {"addr": self.endpoint, "secret": self._layout.key("registry.secret").reveal()},
            "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
        }
