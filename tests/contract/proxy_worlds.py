"""A proxy with targets and people who ask it for pages: played by the fake, and for real by Caddy."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol, Self

from branchline.adapters.caddy import CaddyProxy
from branchline.domain.environment import Environment, Tier
from branchline.layout import Ports
from branchline.ports import Proxy
from branchline.settings import Settings
from branchline.stack import first_start
from branchline.stack.caddy import Caddy
from branchline.stack.part import Running
from tests.contract.upstream import Upstream
from tests.fakes.proxy import FakeProxy


def new_environment(project: str | None = None, name: str = "develop") -> Environment:
    """An environment that nobody else has."""
    return Environment(1, project or f"p{uuid.uuid4().hex[:8]}", name, Tier.NONPROD, 1)


def hostname(environment: Environment) -> str:
    """Its hostname."""
    return f"{environment.name}-{environment.project}.localhost"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: http.client.HTTPMessage


class World(Protocol):
    """What the cases that both keep need."""

    @property
    def proxy(self) -> Proxy: ...

    def target(self) -> str:
        """The address of something that answers."""

    def ask(self, host: str, path: str = "/") -> str | None:
        """The target that answers for a hostname and path; None where nobody does."""

    def provoke(self, host: str, status: int) -> None:
        """Have a request answered with this status."""

    @contextmanager
    def busy(self, host: str, target: str) -> Iterator[None]:
        """While this lasts, the target, which the hostname leads to, is at work on one request."""


class FakeWorld:
    """Nothing but memory."""

    def __init__(self) -> None:
        self.proxy = FakeProxy()
        self._numbers = itertools.count(1)

    def target(self) -> str:
        return f"10.0.0.{next(self._numbers)}:8000"

    def ask(self, host: str, path: str = "/") -> str | None:
        targets = self.proxy.targets(host, path)
        return targets[next(self._numbers) % len(targets)] if targets else None

    def provoke(self, host: str, status: int) -> None:
        self.proxy.answer(host, status)

    @contextmanager
    def busy(self, host: str, target: str) -> Iterator[None]:
        self.proxy.busy[target] += 1
        yield
        self.proxy.busy[target] -= 1


class SmallLogCaddy(Caddy):
    """Caddy as the stack starts it, but its access log is rolled at 1 MB, the least there is."""

    def prepare(self) -> None:
        super().prepare()
        path = self._folder / "caddy.json"
        document = json.loads(path.read_text())
        document["logging"]["logs"]["access"]["writer"]["roll_size_mb"] = 1
        path.write_text(json.dumps(document))


class CaddyWorld:
    """A Caddy with a home of its own, and real servers behind it."""

    def __init__(self) -> None:
        home = Path(tempfile.mkdtemp(prefix=f"bl-proxy-{os.getpid()}-"))
        base = random.Random(os.getpid()).randrange(31_100, 32_600, 20)
        self.layout = first_start.establish(
            home, preferred=Ports(**{field.name: base + n for n, field in enumerate(fields(Ports))})
        )
        self.settings = Settings(home=home)
        self.caddy = Running(SmallLogCaddy(self.layout, self.settings, first_start.account()), home / "log/caddy.log")
        self.proxy = CaddyProxy(self.layout, self.settings)
        self.upstreams: dict[str, Upstream] = {}
        self._stack = ExitStack()

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """A world while it is needed; nothing of it is left behind."""
        world = cls()
        try:
            world.caddy.start()
            yield world
        finally:
            world.caddy.stop()
            world._stack.close()
            shutil.rmtree(world.layout.home)

    @property
    def port(self) -> int:
        return self.layout.ports.proxy

    def upstream(self) -> Upstream:
        """A new server."""
        server = self._stack.enter_context(Upstream(f"127.0.0.{random.randrange(2, 250)}"))
        self.upstreams[server.address] = server
        return server

    def target(self) -> str:
        return self.upstream().address

    def dead_target(self) -> str:
        """An address where nothing listens."""
        server = self.upstream()
        server.end()
        return server.address

    def ask(self, host: str, path: str = "/") -> str | None:
        answer = self.get(host, path)
        assert answer.status in {200, 404}, answer
        return answer.body.decode() if answer.status == 200 else None

    def provoke(self, host: str, status: int) -> None:
        assert self.get(host, f"/status/{status}").status == status

    @contextmanager
    def busy(self, host: str, target: str) -> Iterator[None]:
        thread = threading.Thread(target=self.get, args=(host, "/slow"), daemon=True)
        thread.start()
        wait_until(lambda: self.upstreams[target].paths["/slow"] == 1)
        yield
        self.upstreams[target].hold.set()
        thread.join(10)

    def get(self, host: str, path: str = "/", method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """A request on a connection of its own, with this Host header exactly."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            sent = {"Host": host, **({"Content-Length": str(len(body))} if body else {}), **headers}
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, response.read(), response.headers)
        finally:
            connection.close()


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a condition; fail where it does not come about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
