"""Caddy: takes the traffic of all environments; which way it goes is decided by files, not by its configuration."""

from __future__ import annotations

import json

from branchline.adapters.caddy_config import document
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack import binaries, files
from branchline.stack.asking import expect_ok
from branchline.stack.part import GO_LEAN, Part, plain_environment
from branchline.stack.process import Command, User

LOWEST_FREE_PORT = 1024


class Caddy(Part):
    """The proxy, started with a document that the adapter wrote; its admin API is a Unix socket of its own account."""

    name = "caddy"

    def __init__(self, layout: Layout, settings: Settings, user: User | None) -> None:
        self._layout = layout
        self._settings = settings
        self._user = user
        self._folder = layout.home / "caddy"

    @property
    def endpoint(self) -> str:
        return self._settings.proxy_listen or f"0.0.0.0:{self._layout.ports.proxy}"

    def prepare(self) -> None:
        files.write(self._folder / "caddy.json", json.dumps(document(self._layout, self._settings)), user=self._user)
        self._layout.caddy_admin.unlink(missing_ok=True)

    def command(self) -> Command:
        program = (str(binaries.caddy(self._layout.home)), "run", "--config", str(self._folder / "caddy.json"))
        storage = str(self._folder / "storage")
        environment = plain_environment(
            {**GO_LEAN, "XDG_DATA_HOME": storage, "XDG_CONFIG_HOME": storage, "HOME": storage}
        )
        port = int(self.endpoint.rpartition(":")[2])
        if self._user is None or port >= LOWEST_FREE_PORT:
            return Command(program, folder=self._folder, user=self._user, environment=environment)
        # The account keeps one right of root's: to listen on a port such as 80 or 443.
        change = (
            *("setpriv", "--reuid", str(self._user.uid), "--regid", str(self._user.gid), "--clear-groups"),
            *("--inh-caps=-all,+net_bind_service", "--ambient-caps=+net_bind_service"),
            *("--bounding-set=-all,+net_bind_service", "--no-new-privs"),
        )
        return Command((*change, *program), folder=self._folder, environment=environment)

    def check(self) -> None:
        expect_ok(self._layout.caddy_admin, "/config/apps")
