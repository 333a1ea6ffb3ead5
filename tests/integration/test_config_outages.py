"""When the config store is stopped, frozen, sealed or no config store at all."""

from __future__ import annotations

import http.server
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from branchline.adapters.vault import VaultConfigWriter
from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import BranchlineError, PlatformBroke
from branchline.domain.layers import Layer
from branchline.layout import Layout
from branchline.stack import first_start
from branchline.stack.openbao import OpenBao
from branchline.stack.part import Running, running
from tests.conftest import discard, new_layout
from tests.openbao import Caller, RealConfigStore, operator

VALUE = "a-value-that-nobody-may-see"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Running, RealConfigStore]]:
    """An OpenBao of our own, which other tests do not miss while we are at it."""
    layout = new_layout()
    try:
        part = OpenBao(layout, first_start.account())
        with running(part, layout.log) as alone:
            yield alone, RealConfigStore(part, layout)
    finally:
        discard(layout)


@pytest.fixture
def place() -> Environment:
    return Environment(id=1, project=f"o{uuid.uuid4().hex[:12]}", name="develop", tier=Tier.NONPROD, slot=1)


def said(error: BranchlineError) -> str:
    """Everything of an error that could end up in a log."""
    return "".join([str(error), repr(error), error.hint, *traceback.format_exception(error)])


@pytest.mark.stack
def test_a_frozen_store_is_given_up_in_time(server: tuple[Running, RealConfigStore], place: Environment) -> None:
    alone, store = server
    reader = store.reader(Tier.NONPROD)
    store.put(place.project, place.name, {"A": "1"})
    assert len(reader.read(place)) == 1
    assert alone.process
    alone.process.signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(PlatformBroke) as caught:
            reader.read(place)
        assert time.monotonic() - started < 13
    finally:
        alone.process.signal(signal.SIGCONT)
    assert caught.value.code == "config_unreachable"
    assert "in time" in caught.value.sentence
    assert len(reader.read(place)) == 1


def becomes(store: RealConfigStore, sealed: bool, within: float) -> bool:
    end = time.monotonic() + within
    while Caller(store.url).ask("GET", "sys/seal-status").json()["sealed"] is not sealed:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def seal(store: RealConfigStore) -> None:
    """Until it stays so: it says that it will before it is, and answers or fails in other ways meanwhile.

    And where it could not unseal itself in the first moment of its start, it tries once more five seconds later, though
    somebody has sealed it since.
    """
    for _ in range(3):
        assert operator(store.url, store.layout).ask("POST", "sys/seal").status_code == 204
        assert becomes(store, sealed=True, within=20)
        if not becomes(store, sealed=False, within=6):
            return
    pytest.fail("it unseals itself again and again")


@pytest.mark.stack
def test_a_sealed_store_says_so(server: tuple[Running, RealConfigStore], place: Environment) -> None:
    alone, store = server
    reader, writer = store.reader(Tier.NONPROD), store.writer()
    store.put(place.project, place.name, {"A": "1"})
    layer = Layer(place.project, place.name)
    seal(store)
    for call in (lambda: reader.read(place), lambda: writer.write(layer, {"A": Secret(VALUE)}, 1)):
        with pytest.raises(PlatformBroke) as caught:
            call()
        assert caught.value.code == "config_unreachable"
        assert "sealed" in caught.value.sentence
        assert VALUE not in said(caught.value)
    alone.stop()
    alone.start()
    assert reader.read(place)["A"].reveal() == "1"


@pytest.mark.stack
def test_a_restart_in_between_is_not_noticed(server: tuple[Running, RealConfigStore], place: Environment) -> None:
    alone, store = server
    reader, writer = store.reader(Tier.NONPROD), store.writer()
    store.put(place.project, place.name, {"A": "1"})
    reader.read(place)
    alone.kill()
    back = threading.Timer(0.3, alone.start)
    back.start()
    try:
        assert reader.read(place)["A"].reveal() == "1"
        assert writer.write(Layer(place.project, place.name), {"A": Secret("2")}, 1) == 2
    finally:
        back.join()


class _Strange(http.server.BaseHTTPRequestHandler):
    """Logs everybody in, knows no config, and answers writes as it is told, with what was written in the answer."""

    status = 200
    kind = "application/json"
    answer = "{}"

    def do_GET(self) -> None:
        self._send(404, "application/json", '{"errors": []}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path.endswith("/login"):
            self._send(200, "application/json", '{"auth": {"client_token": "t", "lease_duration": 60}}')
        else:
            self._send(self.status, self.kind, self.answer.replace("BODY", body.replace('"', "'")))

    def _send(self, status: int, kind: str, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def speaking(handler: type[_Strange]) -> Iterator[str]:
    """The address of a server that answers so."""
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        yield f"http://someone:{VALUE}@127.0.0.1:{web.server_port}"
    finally:
        web.shutdown()
        web.server_close()


def test_a_slow_store_is_waited_for(home_layout: Layout) -> None:
    """Each answer comes late, and none too late."""

    class Handler(_Strange):
        answer = '{"data": {"version": 1}}'

        def _send(self, status: int, kind: str, text: str) -> None:
            time.sleep(2.5)
            super()._send(status, kind, text)

    with speaking(Handler) as url:
        writer = VaultConfigWriter(url, partial(home_layout.key, "server.pem"))
        began = time.monotonic()
        assert writer.write(Layer("shop", "production"), {"A": Secret(VALUE)}, 0) == 1
        assert time.monotonic() - began > 7


@pytest.mark.parametrize(("cut", "works"), [(0, True), (2, True), (3, False), (9, False)])
def test_logins_that_are_cut_off_are_tried_again(home_layout: Layout, cut: int, works: bool) -> None:
    asked: list[str] = []

    class Handler(_Strange):
        answer = '{"data": {"version": 1}}'

        def do_POST(self) -> None:
            asked.append(self.path)
            if self.path.endswith("/login") and len(asked) <= cut:
                self.close_connection = True
            else:
                super().do_POST()

    with speaking(Handler) as url:
        writer = VaultConfigWriter(url, partial(home_layout.key, "server.pem"))
        if works:
            assert writer.write(Layer("shop", "production"), {"A": Secret(VALUE)}, 0) == 1
            assert len(asked) == cut + 2
        else:
            with pytest.raises(PlatformBroke, match="cannot be reached"):
                writer.write(Layer("shop", "production"), {"A": Secret(VALUE)}, 0)
            assert len(asked) == 3


@pytest.mark.parametrize(
    ("status", "kind", "answer"),
    [
        (200, "text/html", "<html>welcome, BODY</html>"),
        (200, "application/json", '["BODY"]'),
        (200, "application/json", '{"data": "BODY"}'),
        (404, "text/html", "no such page: BODY"),
        (403, "text/html", "forbidden: BODY"),
        (400, "application/json", '{"errors": ["bad: BODY"]}'),
        (403, "application/json", '{"errors": ["denied: BODY"]}'),
        (404, "application/json", '{"errors": ["no handler for BODY"]}'),
        (418, "application/json", '{"errors": ["BODY"]}'),
        (500, "application/json", '{"errors": ["broken by BODY"]}'),
        (502, "text/html", "<html>BODY</html>"),
        (503, "text/html", "<html>BODY</html>"),
    ],
)
def test_strange_answers_are_clear_errors_without_values(
    home_layout: Layout, status: int, kind: str, answer: str
) -> None:
    handler = type("Handler", (_Strange,), {"status": status, "kind": kind, "answer": answer})
    with speaking(handler) as url:
        writer = VaultConfigWriter(url, partial(home_layout.key, "server.pem"))
        with pytest.raises(PlatformBroke) as caught:
            writer.write(Layer("shop", "production"), {"A": Secret(VALUE)}, 0)
    assert caught.value.code in {"config_unreachable", "config_refused"}
    assert caught.value.hint
    assert VALUE not in said(caught.value)
    assert caught.value.__context__ is None
