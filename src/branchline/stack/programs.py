"""Our own programs: the HTTP server, and one runner for each tier."""

from __future__ import annotations

import json
import os
import sys
import time

from branchline.domain.environment import Tier
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack.asking import expect_ok
from branchline.stack.part import NotReady, Part
from branchline.stack.process import Command

FRESH = 10.0
"""Seconds: a runner writes its heartbeat every second; an older one is no sign of life."""


class Program(Part):
    """A module of ours, run by the interpreter that runs us, with all of our environment."""

    stop_limit = 25.0  # what they carry is finished or left to be resumed within half of this
    patience = 60.0

    def __init__(self, layout: Layout, name: str, *arguments: str) -> None:
        self.name = name
        self._layout = layout
        self._arguments = arguments

    def command(self) -> Command:
        return Command(
            (sys.executable, "-P", "-m", *self._arguments),
            folder=self._layout.home,
            # Routes are made by a runner and read by the proxy's account.
            umask=0o022,
            environment=self._environment(),
        )

    def _environment(self) -> dict[str, str]:
        """All of ours, but for a wish not to keep bytecode: without it each start takes three times as long."""
        ours = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        # A heap for each of many threads would keep what each of them once needed.
        return {"MALLOC_ARENA_MAX": "2", **ours, "BRANCHLINE_HOME": str(self._layout.home), "PYTHONUNBUFFERED": "1"}


class Server(Program):
    """The HTTP server: API, dashboard, webhooks."""

    needs = ("postgres-platform",)

    def __init__(self, layout: Layout, settings: Settings) -> None:
        super().__init__(layout, "server", "branchline.server.main")
        self._listen = settings.server_listen or f"127.0.0.1:{layout.ports.server}"

    @property
    def endpoint(self) -> str:
        return f"http://{self._listen}"

    @property
    def address(self) -> str:
        """Host and port at which it answers on this machine."""
        host, _, port = self._listen.rpartition(":")
        return f"{'127.0.0.1' if host in {'', '0.0.0.0', '[::]'} else host}:{port}"  # noqa: S104 only compared

    def check(self) -> None:
        expect_ok(self.address, "/healthz")


class Runner(Program):
    """A runner of a tier; the first one has no number in its name."""

    def __init__(self, layout: Layout, tier: Tier, number: int = 1) -> None:
        name = f"runner-{tier}" + (f"-{number}" if number > 1 else "")
        super().__init__(layout, name, "branchline.runner", "--tier", tier, "--name", name)
        self.needs = ("postgres-platform", f"postgres-{tier}", "openbao", "registry", "caddy")
        self._heartbeat = layout.run / f"{name}.json"

    @property
    def endpoint(self) -> str:
        return f"heartbeat {self._heartbeat.name}"

    def prepare(self) -> None:
        self._heartbeat.unlink(missing_ok=True)

    def check(self) -> None:
        try:
            age = time.time() - float(json.loads(self._heartbeat.read_text())["at"])
        except FileNotFoundError:
            raise NotReady("it has not shown a sign of life yet") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise NotReady("its sign of life cannot be read") from None
        if abs(age) > FRESH:
            raise NotReady(f"its last sign of life is {age:.0f} s old")
