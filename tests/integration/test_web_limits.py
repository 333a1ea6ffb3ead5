"""What the web server does not put up with, over raw sockets: too much, too slow, too many; and its headers."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from branchline.server import frame
from branchline.server.connection import Connection
from branchline.server.headers import HEADERS
from tests.fakes.platform import FakePlatform
from tests.integration.served import client, eventually, recorded, served

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with recorded(), served(FakePlatform()) as made:
        yield made


class Caller:
    """A raw connection."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection(("127.0.0.1", address.port or 0), timeout=10)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer, after which the connection must close."""
        said = b""
        while chunk := self._heard(said):
            said += chunk
        head, _, body = said.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return int(first.split()[1]), {name.lower(): value for name, value in (x.split(": ", 1) for x in lines)}, body

    def _heard(self, before: bytes) -> bytes:
        """The next of it. Whoever still sends when the answer is out has the connection closed by a reset."""
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            if not before:
                raise
            return b""

    def kept(self) -> int:
        """The status of an answer after which the connection stays open."""
        response = http.client.HTTPResponse(self.socket)
        response.begin()
        response.read()
        return response.status

    def refused(self, status: int, code: str) -> None:
        """It is a problem like any other, with all the headers, and the connection closes."""
        found, headers, body = self.answer()
        problem = json.loads(body)
        assert (found, problem["status"], problem["code"]) == (status, status, code)
        assert problem["title"]
        assert headers["content-type"] == "application/problem+json"
        assert headers["connection"] == "close"
        assert headers["cache-control"] == "no-store"
        assert HEADERS.items() <= {name: headers.get(name.lower()) for name in HEADERS}.items()


@pytest.fixture
def caller(url: str) -> Iterator[Caller]:
    made = Caller(url)
    yield made
    made.socket.close()


# --- too much --------------------------------------------------------------------------------------------------------


def test_headers_beyond_the_limit(caller: Caller) -> None:
    caller.send(GET + b"X: " + b"x" * 40_000)
    caller.refused(431, "headers_too_large")


def test_a_first_line_without_end(caller: Caller) -> None:
    caller.send(b"GET /" + b"x" * 40_000)
    caller.refused(431, "headers_too_large")


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_request(caller: Caller, said: bytes) -> None:
    caller.send(said)
    caller.refused(400, "malformed_request")


def test_many_headers(caller: Caller) -> None:
    caller.send(GET + b"Connection: close\r\n" + b"".join(b"X%d: y\r\n" % number for number in range(120)) + b"\r\n")
    caller.refused(431, "headers_too_large")


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("x" * 9000, 414, "address_too_long"),
        ("&".join(f"a{number}=1" for number in range(60)), 422, "too_many_fields"),
    ],
)
def test_addresses(url: str, query: str, status: int, code: str) -> None:
    with client(url) as api:
        answer = api.get(f"/api/v1/projects?{query}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


# --- too slow --------------------------------------------------------------------------------------------------------


def dribble(caller: Caller, piece: bytes, seconds: float) -> float:
    """Send a piece every now and then, until the server has had enough; how long that took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            caller.send(piece)
        except OSError:
            break
        caller.socket.settimeout(0.1)
        try:
            if caller.socket.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            continue
        except OSError:
            break
    caller.socket.settimeout(10)
    return time.monotonic() - began


@pytest.mark.parametrize("first", [b"", b"GET /healthz", GET + b"\r\n"])
def test_a_head_that_never_ends(url: str, first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "head_seconds", 0.6)
    caller = Caller(url)
    caller.send(first)
    if first.endswith(b"\r\n\r\n"):  # on a connection that had an answer already
        assert caller.kept() == 200
        caller.send(GET)
    assert 0.3 < dribble(caller, b"X: y\r\n" if first else b"G", 5) < 3
    caller.refused(408, "request_timeout")


def test_nothing_at_all(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "head_seconds", 0.5)
    Caller(url).refused(408, "request_timeout")


@pytest.mark.parametrize("kind", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
def test_a_body_that_never_ends(url: str, kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "BODY_SECONDS", 0.6)
    caller = Caller(url)
    with client(url) as api:
        token = api.headers["Authorization"].encode()
    head = b"POST /api/v1/projects HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: " + token
    caller.send(head + b"\r\n" + kind + b"\r\n\r\n")
    assert dribble(caller, b" " if b"Length" in kind else b"1\r\n \r\n", 5) < 3
    caller.refused(408, "request_timeout")


def test_the_rest_of_a_body_that_nobody_wants(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "rest_seconds", 0.6)
    caller = Caller(url)
    caller.send(b"GET /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    assert caller.kept() == 404
    assert 0.3 < dribble(caller, b"x", 5) < 3


def test_a_rest_that_comes_leaves_the_connection_open(url: str) -> None:
    caller = Caller(url)
    caller.send(b"GET /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
    assert caller.kept() == 404
    caller.send(b"x" * 10)
    time.sleep(0.1)
    caller.send(GET + b"Connection: close\r\n\r\n")
    assert caller.answer()[0] == 200


# --- too many --------------------------------------------------------------------------------------------------------


def test_more_connections_than_it_can_carry(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "at_once", 3)
    held = [Caller(url) for _ in range(3)]
    Caller(url).refused(503, "crowded")
    for one in held:
        one.socket.close()
    eventually(lambda: httpx.get(f"{url}/healthz", trust_env=False).status_code == 200)


# --- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/healthz", "/api/v1/projects", "/nowhere", "/api/openapi.json"])
def test_headers_of_every_answer(url: str, path: str) -> None:
    with client(url) as api:
        plain = api.get(path).headers
        safe = api.get(path, headers={"X-Forwarded-Proto": "https"}).headers
    assert HEADERS.items() <= {name: plain.get(name) for name in HEADERS}.items()
    assert "server" not in plain
    assert plain["cache-control"]
    assert "strict-transport-security" not in plain, "a promise that plain HTTP cannot keep"
    assert safe["strict-transport-security"] == "max-age=31536000"
    policy = plain["content-security-policy"]
    assert "'unsafe" not in policy
    assert "default-src 'none'" in policy
