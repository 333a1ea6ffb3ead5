"""The server around operations in memory: a real one, on a port of its own, in a thread of the tests."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import structlog

from branchline.domain.access import Role
from branchline.server import logs
from branchline.server.app import Server
from branchline.server.source import Network
from branchline.server.web import WebServer, bind
from tests.fakes.platform import FakePlatform


class Journal(io.StringIO):
    """What the server wrote to its log."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def clear(self) -> None:
        self.seek(0)
        self.truncate()


@contextmanager
def recorded() -> Iterator[Journal]:
    """The server's own logging, into memory; afterwards logging is as it was."""
    root = logging.getLogger()
    before, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    levels = {name: logging.getLogger(name).level for name in logs.QUIET}
    journal = Journal()
    logs.configure(journal)
    try:
        yield journal
    finally:
        structlog.reset_defaults()
        root.handlers[:] = before
        root.setLevel(level)
        for name, one in levels.items():
            logging.getLogger(name).setLevel(one)
        logging.raiseExceptions = raising


@contextmanager
def served(platform: FakePlatform, listen: str = "127.0.0.1:0", trusted: Sequence[Network] = ()) -> Iterator[str]:
    """Serve on a free port, or at a given place; gives the address."""
    listener = bind(listen)
    server = WebServer(Server(platform, trusted))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        url = f"http://localhost:{listener.getsockname()[1]}"
        if isinstance(platform, FakePlatform):
            platform.follow(url)
        yield url
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "the server does not stop"


def client(url: str, role: Role | None = Role.ADMIN) -> httpx.Client:
    """A client with the token of a role; None: without any."""
    headers = {} if role is None else {"Authorization": f"Bearer bl_{role}"}
    return httpx.Client(base_url=url, headers=headers, timeout=10, trust_env=False)


def eventually(condition: object, seconds: float = 5.0) -> None:
    """Wait until a condition holds."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)
