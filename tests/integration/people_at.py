"""The real platform with real people: its server on real tables, and browsers that behave as browsers do."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from branchline.bootstrap.server import ServerPlatform, server_platform
from branchline.domain.access import EVERYWHERE, Actor, Role
from branchline.domain.audit import Wanted
from branchline.server.app import Server
from branchline.server.source import networks
from branchline.server.web import WebServer, bind
from branchline.settings import Settings
from branchline.wire_audit import AuditLine
from tests.integration.served import recorded

OPERATOR = Actor("tests", "tests", {EVERYWHERE: Role.ADMIN})
SESSION, LOGIN = "branchline_session", "branchline_login"

_addresses = (f"10.{a}.{b}.7" for a, b in itertools.product(range(1, 200), range(250)))


@dataclass
class Place:
    """A platform at a port of its own. Its server believes this machine's word about where requests come from."""

    url: str
    platform: ServerPlatform

    def events(self, source: str) -> list[AuditLine]:
        """What the register has from an address, oldest first."""
        return [one for one in self.register() if one.source == source]

    def register(self) -> list[AuditLine]:
        """The last lines of the register, oldest first."""
        return list(reversed(self.platform.audit.list(OPERATOR, Wanted(), limit=1000).items))


@contextmanager
def platform_at(settings: Callable[[str], Settings]) -> Iterator[Place]:
    """Serve the real platform, with settings that may name its address."""
    listener = bind("127.0.0.1:0")
    url = f"http://localhost:{listener.getsockname()[1]}"
    place = Place(url, server_platform(settings(url), lambda _chore, _why: None))
    server = WebServer(Server(place.platform, networks("127.0.0.1")))
    thread = threading.Thread(target=server.run, args=([listener],))
    with recorded():
        thread.start()
        try:
            yield place
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive(), "the server does not stop"


class Browser:
    """A browser at an address of its own: cookies, and the headers that say which site a request comes from."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.source = next(_addresses)
        headers = {"User-Agent": "Browser of the tests", "X-Forwarded-For": self.source, "Accept": "text/html"}
        self.http = httpx.Client(base_url=url, timeout=20, trust_env=False, headers=headers)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def get(self, path: str) -> httpx.Response:
        """Follow a link of our own pages."""
        return self.http.get(path, headers={"Sec-Fetch-Site": "same-origin"})

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form of our own pages."""
        return self.http.post(path, data=fields, headers={"Origin": self.url})

    def arrive(self, address: str) -> httpx.Response:
        """Be sent there by another site: cookies that are strict stay at home."""
        at_home = self.http.cookies.get(SESSION)
        if at_home:
            self.http.cookies.delete(SESSION)
        answer = self.http.get(address, headers={"Sec-Fetch-Site": "cross-site"})
        if at_home and not self.session and "branchline_session" not in str(answer.headers.get_list("set-cookie")):
            self.session = at_home
        return answer

    def go_to_provider(self, then: str = "/", provider: str = "oidc") -> str:
        """Press the button; gives where the provider is."""
        answer = self.get(f"/login/{provider}?then={quote(then, safe='')}")
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    @property
    def session(self) -> str:
        """The id of the session that the browser has."""
        return self.http.cookies.get(SESSION) or ""

    @session.setter
    def session(self, value: str) -> None:
        self.http.cookies.delete(SESSION)
        self.http.cookies.set(SESSION, value, domain="localhost.local", path="/")

    @property
    def is_in(self) -> bool:
        """Whether somebody is logged in here."""
        return self.get("/account").status_code == 200
