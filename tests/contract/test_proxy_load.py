"""Switching while people are at it: no request fails, and what lasts long outlives every switch."""

from __future__ import annotations

import http.client
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

from branchline.adapters.caddy_config import UNKNOWN_HOST
from branchline.ports import Route
from tests.contract.proxy_worlds import CaddyWorld, hostname, new_environment, wait_until

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def world() -> Iterator[CaddyWorld]:
    with CaddyWorld.running() as world:
        yield world


class Load:
    """People who ask without a pause, some on one connection and some on a new one each time; nobody asks twice."""

    def __init__(self, world: CaddyWorld, host: str, path: str = "/", method: str = "GET") -> None:
        self.answers: Counter[tuple[int, str]] = Counter()
        self.failures: list[str] = []
        self._world, self._host, self._path, self._method = world, host, path, method
        self._over = threading.Event()
        people = [self._stay, self._stay, self._stay, self._come_anew, self._come_anew]
        self._threads = [threading.Thread(target=self._note, args=(person,), daemon=True) for person in people]

    @contextmanager
    def going(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.answers.total() > 20)
        yield
        asked = self.answers.total()
        wait_until(lambda: self.answers.total() > asked + 20 or self.failures)
        self._over.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _note(self, person: Callable[[], None]) -> None:
        try:
            person()
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(repr(error))

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        connection.request(self._method, self._path, headers={"Host": self._host})
        response = connection.getresponse()
        self.answers[response.status, response.read().decode()] += 1

    def _stay(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._world.port, timeout=15)
        while not self._over.is_set():
            self._ask(connection)
        connection.close()

    def _come_anew(self) -> None:
        while not self._over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._world.port, timeout=15)
            self._ask(connection)
            connection.close()


def test_two_hundred_switches_under_load_fail_nobody(world: CaddyWorld) -> None:
    environment, neighbour = new_environment(), new_environment()
    blue, green, other = (world.target() for _ in range(3))
    world.proxy.switch(neighbour, [hostname(neighbour)], [Route("/", (other,))])
    world.proxy.switch(environment, [hostname(environment)], [Route("/", (blue,))])
    load, next_door = Load(world, hostname(environment)), Load(world, hostname(neighbour))
    with load.going(), next_door.going():
        for _, target in zip(range(200), itertools.cycle([green, blue]), strict=False):
            world.proxy.switch(environment, [hostname(environment)], [Route("/", (target,))])
            assert world.ask(hostname(environment)) == target
    assert load.failures + next_door.failures == []
    assert set(load.answers) == {(200, blue), (200, green)}
    assert set(next_door.answers) == {(200, other)}
    assert load.answers.total() > 400


def test_switches_between_one_route_and_several_fail_nobody(world: CaddyWorld) -> None:
    environment = new_environment()
    old, new, api = (world.target() for _ in range(3))
    one, several = [Route("/", (old,))], [Route("/", (new,)), Route("/api", (api,))]
    world.proxy.switch(environment, [hostname(environment)], one)
    load = Load(world, hostname(environment), "/api/x")
    with load.going():
        for _, routes in zip(range(150), itertools.cycle([several, one]), strict=False):
            world.proxy.switch(environment, [hostname(environment)], routes)
    assert load.failures == []
    assert set(load.answers) == {(200, old), (200, api)}


def test_targets_may_end_right_after_the_switch(world: CaddyWorld) -> None:
    environment = new_environment()
    upstream = world.upstream()
    world.proxy.switch(environment, [hostname(environment)], [Route("/", (upstream.address,))])
    load = Load(world, hostname(environment))
    with load.going():
        for _ in range(25):
            before, upstream = upstream, world.upstream()
            world.proxy.switch(environment, [hostname(environment)], [Route("/", (upstream.address,))])
            before.end()
            time.sleep(0.02)
    assert load.failures == []
    assert {status for status, _ in load.answers} == {200}


def test_a_dead_target_fails_nobody_while_another_lives(world: CaddyWorld) -> None:
    environment = new_environment()
    alive, dying = world.upstream(), world.upstream()
    world.proxy.switch(environment, [hostname(environment)], [Route("/", (alive.address, dying.address))])
    load = Load(world, hostname(environment))
    with load.going():
        wait_until(lambda: len(load.answers) == 2)
        dying.end()
        time.sleep(0.5)
    assert load.failures == []
    assert {status for status, _ in load.answers} == {200}


def test_requests_wait_for_a_target_that_comes_back(world: CaddyWorld) -> None:
    environment = new_environment()
    dead, alive = world.dead_target(), world.target()
    world.proxy.switch(environment, [hostname(environment)], [Route("/", (dead,))])
    with later(0.7, lambda: world.proxy.switch(environment, [hostname(environment)], [Route("/", (alive,))])):
        assert world.ask(hostname(environment)) == alive


def test_a_request_that_waits_for_a_removed_environment_is_told_so(world: CaddyWorld) -> None:
    environment = new_environment()
    world.proxy.switch(environment, [hostname(environment)], [Route("/", (world.dead_target(),))])
    with later(0.7, lambda: world.proxy.switch(environment, [], [])):
        answer = world.get(hostname(environment))
    assert (answer.status, answer.body.decode()) == (404, UNKNOWN_HOST)


@contextmanager
def later(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(seconds, action)
    timer.start()
    yield
    timer.join()


# --- what lasts long -------------------------------------------------------------------------------------------------


@pytest.fixture
def echo() -> Iterator[str]:
    """A server of WebSockets that sends back what it is told."""

    def answer(socket: ServerConnection) -> None:
        for message in socket:
            socket.send(message)

    with serve(answer, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield address(server)
        server.shutdown()
        thread.join()


def address(server: Server) -> str:
    host, port = server.socket.getsockname()
    return f"{host}:{port}"


@contextmanager
def web_socket(world: CaddyWorld, host: str) -> Iterator[ClientConnection]:
    way = socket.create_connection(("127.0.0.1", world.port))
    with connect(f"ws://{host}:{world.port}/ws", sock=way, proxy=None) as opened:
        yield opened


def test_web_sockets_and_event_streams_outlive_switches_and_are_in_flight(world: CaddyWorld, echo: str) -> None:
    environment, neighbour = new_environment(), new_environment()
    first, second = world.target(), world.target()

    def routes(target: str, sockets: str) -> list[Route]:
        return [Route("/", (target,)), Route("/ws", (sockets,))]

    world.proxy.switch(environment, [hostname(environment)], routes(first, echo))
    world.proxy.switch(neighbour, [hostname(neighbour)], routes(second, echo))
    streaming = http.client.HTTPConnection("127.0.0.1", world.port, timeout=15)
    streaming.request("GET", "/events", headers={"Host": hostname(environment)})
    with web_socket(world, hostname(environment)) as chat, streaming.getresponse() as events:
        assert world.proxy.in_flight([echo]) == 1
        assert world.proxy.in_flight([first]) == 1
        for round_number in range(10):
            for moved in (environment, neighbour):
                world.proxy.switch(moved, [hostname(moved)], routes(second if round_number % 2 else first, second))
                chat.send(f"{round_number}")
                assert chat.recv(timeout=5) == f"{round_number}"
                sent_at = float(next(line for line in events if line.startswith(b"data")).split()[2])
                assert time.time() - sent_at < 5
        world.proxy.switch(environment, [hostname(environment)], [])
        chat.send("still there")
        assert chat.recv(timeout=5) == "still there"
        assert world.proxy.in_flight([echo, first]) == 2
    streaming.close()
    wait_until(lambda: world.proxy.in_flight([echo, first]) == 0)


def test_events_arrive_as_they_happen(world: CaddyWorld) -> None:
    environment = new_environment()
    world.proxy.switch(environment, [hostname(environment)], [Route("/", (world.target(),))])
    connection = http.client.HTTPConnection("127.0.0.1", world.port, timeout=15)
    connection.request("GET", "/events", headers={"Host": hostname(environment)})
    with connection.getresponse() as events:
        delays = []
        while len(delays) < 10:
            if (line := events.readline()).startswith(b"data"):
                delays.append(time.time() - float(line.split()[2]))
    connection.close()
    assert sorted(delays)[5] < 0.5
