"""What Probes promises, on the fake and over a real network; and how the real ones deal with odd servers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from branchline.adapters.probes import NetworkProbes
from branchline.domain.environment import Environment, Tier
from branchline.domain.manifest import HealthCheck
from branchline.ports import Instance, Probes, ServiceSpec
from tests.fakes.containers import Call, FakeContainers
from tests.fakes.log import FakeInterrupt
from tests.fakes.probes import FakeProbes

HTTP = HealthCheck(path="/healthz", probe_timeout=2)
TCP = HealthCheck(tcp=True, probe_timeout=2)


class Server:
    """Answers each connection with what `behave` does to it, and remembers the requests."""

    def __init__(self, behave: Callable[[socket.socket], object]) -> None:
        self.requests: list[str] = []
        self._behave = behave
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                try:
                    self.requests.append(connection.recv(65536).decode())
                    self._behave(connection)
                except OSError:
                    continue  # the probe had heard enough


def _answering(answer: str) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(answer.encode())


def _with_status(status: str, headers: str = "") -> Callable[[socket.socket], None]:
    return _answering(f"HTTP/1.1 {status}\r\n{headers}Content-Length: 2\r\n\r\nhm")


def _instance(port: int | None) -> Instance:
    return Instance("web-1", "web", 1, 1, "127.0.0.1", port)


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[socket.socket], None]], Server]]:
    servers: list[Server] = []

    def started(behave: Callable[[socket.socket], None]) -> Server:
        servers.append(Server(behave))
        return servers[-1]

    yield started
    for server in servers:
        server.close()


@pytest.fixture
def probes() -> NetworkProbes:
    return NetworkProbes(FakeContainers())


@pytest.fixture
def free_port() -> int:
    """A port at which nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


@dataclass
class Place:
    """Probes under test, and a service that answers with a given HTTP status, or not at all."""

    probes: Probes
    answering: Callable[[str], Instance]
    dead: Callable[[], Instance]


@pytest.fixture(params=["fake", "network"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "network":
        serve = request.getfixturevalue("serve")
        return Place(
            request.getfixturevalue("probes"),
            lambda status: _instance(serve(_with_status(status)).port),
            lambda: _instance(request.getfixturevalue("free_port")),
        )
    containers = FakeContainers()
    fake = FakeProbes(containers)

    def start() -> Instance:
        spec = ServiceSpec("web", "image", ("serve",), 1, 8000)
        environment = Environment(1, "shop", "develop", Tier.NONPROD, 1)
        return containers.start(environment, 1, [spec], FakeInterrupt())[0]

    def answering(status: str) -> Instance:
        number = int(status[:3])
        fake.answer("web", (200 <= number < 400, f"HTTP {number}"))
        return start()

    def dead() -> Instance:
        instance = start()
        containers.crash(instance)
        return instance

    return Place(fake, answering, dead)


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "302 Found", "399 Odd"])
def test_two_and_three_hundreds_are_healthy(place: Place, status: str) -> None:
    assert place.probes.probe(place.answering(status), HTTP) == (True, f"HTTP {status[:3]}")


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error", "503 Service Unavailable"])
def test_four_and_five_hundreds_are_not(place: Place, status: str) -> None:
    assert place.probes.probe(place.answering(status), HTTP) == (False, f"HTTP {status[:3]}")


@pytest.mark.parametrize("check", [HTTP, TCP])
def test_nobody_there(place: Place, check: HealthCheck) -> None:
    assert place.probes.probe(place.dead(), check) == (False, "connection refused")


def test_probes_may_be_repeated(place: Place) -> None:
    instance = place.answering("200 OK")

    assert [place.probes.probe(instance, HTTP)[0] for _ in range(3)] == [True, True, True]


# --- over the network only -----------------------------------------------------------------------------------


def test_a_port_that_accepts_is_enough_for_tcp(probes: NetworkProbes, serve: Callable[..., Server]) -> None:
    server = serve(_answering("anything"))

    assert probes.probe(_instance(server.port), TCP) == (True, "accepts connections")


def test_the_request_says_who_asks_and_for_what(probes: NetworkProbes, serve: Callable[..., Server]) -> None:
    server = serve(_with_status("200 OK"))
    probes.probe(_instance(server.port), HealthCheck(path="/up?deep=1"))

    first, *headers = server.requests[0].strip().split("\r\n")
    assert first == "GET /up?deep=1 HTTP/1.1"
    assert set(headers) >= {"Host: localhost", "User-Agent: branchline-probe", "Connection: close"}


def test_the_host_can_be_another(serve: Callable[..., Server]) -> None:
    server = serve(_with_status("200 OK"))
    NetworkProbes(FakeContainers(), lambda one: f"{one.service}.example").probe(_instance(server.port), HTTP)

    assert "\r\nHost: web.example\r\n" in server.requests[0]


def test_a_refused_host_is_hinted_at(probes: NetworkProbes, serve: Callable[..., Server]) -> None:
    server = serve(_with_status("400 Bad Request"))

    healthy, saw = probes.probe(_instance(server.port), HTTP)
    assert not healthy
    assert saw.startswith("HTTP 400")
    assert "Host: localhost" in saw


def test_redirects_are_not_followed(probes: NetworkProbes, serve: Callable[..., Server], free_port: int) -> None:
    server = serve(_with_status("301 Moved", f"Location: http://127.0.0.1:{free_port}/\r\n"))

    assert probes.probe(_instance(server.port), HTTP) == (True, "HTTP 301")


def test_each_probe_has_a_connection_of_its_own(probes: NetworkProbes, serve: Callable[..., Server]) -> None:
    server = serve(_with_status("200 OK", "Connection: keep-alive\r\n"))
    for _ in range(3):
        assert probes.probe(_instance(server.port), HTTP)[0]

    assert len(server.requests) == 3


def test_an_endless_body_is_not_waited_for(probes: NetworkProbes, serve: Callable[..., Server]) -> None:
    def stream(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"data: hm\n\n")
            time.sleep(0.1)

    server = serve(stream)
    began = time.monotonic()

    assert probes.probe(_instance(server.port), HTTP) == (True, "HTTP 200")
    assert time.monotonic() - began < 1


def test_silence_is_no_answer(probes: NetworkProbes, serve: Callable[..., Server]) -> None:
    done = threading.Event()
    server = serve(lambda _: done.wait(10))
    began = time.monotonic()

    assert probes.probe(_instance(server.port), HealthCheck(path="/", probe_timeout=0.3)) == (
        False,
        "no answer within 0.3 s",
    )
    assert 0.2 < time.monotonic() - began < 2
    done.set()


def test_a_drop_at_a_time_does_not_stretch_the_time(probes: NetworkProbes, serve: Callable[..., Server]) -> None:
    def drip(connection: socket.socket) -> None:
        for sign in "HTTP/1.1 200 OK" + "\r\nX-More: yes" * 50:
            connection.sendall(sign.encode())
            time.sleep(0.05)

    server = serve(drip)
    began = time.monotonic()
    healthy, saw = probes.probe(_instance(server.port), HealthCheck(path="/", probe_timeout=0.5))

    assert (healthy, saw) == (False, "no answer within 0.5 s")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("answer", "saw"),
    [
        ("SSH-2.0-OpenSSH_9\r\n", "an answer that is not HTTP"),
        ("", "closed the connection without an answer"),
        ("HTTP/1.1 200 OK\r\n" + f"X: {'y' * 70_000}\r\n\r\n", "an answer that is not HTTP"),
    ],
)
def test_odd_answers(probes: NetworkProbes, serve: Callable[..., Server], answer: str, saw: str) -> None:
    server = serve(_answering(answer))

    assert probes.probe(_instance(server.port), HTTP) == (False, saw)


@pytest.mark.parametrize("check", [HTTP, TCP])
def test_a_service_without_a_port_is_said_so(probes: NetworkProbes, check: HealthCheck) -> None:
    assert probes.probe(_instance(None), check) == (False, "the service has no port")


def test_commands_are_asked_of_the_container() -> None:
    def check(call: Call) -> int:
        call.say(f"ran {' '.join(call.command)}")
        return 0 if call.command[1] == "well" else 3

    containers = FakeContainers({"check": check})
    environment = Environment(1, "shop", "develop", Tier.NONPROD, 1)
    (instance,) = containers.start(environment, 1, [ServiceSpec("worker", "image", ("work",))], FakeInterrupt())
    probes = NetworkProbes(containers)

    well = HealthCheck.model_validate({"command": "check well"})
    sick = HealthCheck.model_validate({"command": "check sick"})
    assert probes.probe(instance, well) == (True, "ran check well")
    assert probes.probe(instance, sick) == (False, "exited with 3: ran check sick")
