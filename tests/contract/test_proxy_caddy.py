"""What only a real Caddy can show: pages, headers, odd requests, the logs, and what crashes leave behind."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from branchline.adapters.caddy import CaddyProxy
from branchline.adapters.caddy_config import NO_ANSWER, UNKNOWN_HOST, UNKNOWN_PATH
from branchline.domain.environment import Environment
from branchline.domain.errors import BadInput, PlatformBroke
from branchline.ports import Route, Traffic
from branchline.settings import Settings
from tests.contract.proxy_worlds import CaddyWorld, hostname, new_environment, wait_until

pytestmark = pytest.mark.stack

PROCESSES = 6
STRANGE_PATHS = [
    *(
        "/*",
        "/a*b/?x",
        "/[a-z]/",
        "/%5B%5D%5C",
        "/%00",
        "/a/../../b",
        "/%2e%2e/%2e%2e",
        "/%7Benv.HOME%7D",
        "/@",
        "/@/@*",
    ),
    *("/" + "x/" * 900, "/" + "y" * 3000, "/a//b", "/%2F%2F", "/%C3%BC"),
]


@pytest.fixture(scope="module")
def world() -> Iterator[CaddyWorld]:
    with CaddyWorld.running() as world:
        yield world


@pytest.fixture
def environment(world: CaddyWorld) -> Environment:
    """An environment that one upstream answers for."""
    environment = new_environment()
    world.proxy.switch(environment, [hostname(environment)], [Route("/", (world.target(),))])
    return environment


# --- pages and headers -----------------------------------------------------------------------------------------------


def test_an_unknown_hostname_gets_a_plain_page(world: CaddyWorld) -> None:
    answer = world.get("nobody.localhost")
    assert (answer.status, answer.body.decode()) == (404, UNKNOWN_HOST)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "Server" not in answer.headers


def test_an_unknown_path_gets_a_plain_page(world: CaddyWorld) -> None:
    environment = new_environment()
    world.proxy.switch(environment, [hostname(environment)], [Route("/api", (world.target(),))])
    answer = world.get(hostname(environment), "/")
    assert (answer.status, answer.body.decode()) == (404, UNKNOWN_PATH)


def test_where_all_targets_are_dead_a_plain_page_comes_in_time(world: CaddyWorld) -> None:
    environment = new_environment()
    world.proxy.switch(environment, [hostname(environment)], [Route("/", (world.dead_target(),))])
    began = time.monotonic()
    answer = world.get(hostname(environment))
    assert (answer.status, answer.body.decode()) == (502, NO_ANSWER)
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("spelling", ["{}", "{}:8080", "{}.", "{}.:80"])
@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_hostnames_are_the_same_however_they_are_spelt(
    world: CaddyWorld, environment: Environment, spelling: str, case: Any
) -> None:
    assert world.ask(spelling.format(case(hostname(environment))))


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".", "..", "a b", "a{b}", "*", "x" * 300])
def test_nothing_but_a_hostname_names_a_file(world: CaddyWorld, name: str) -> None:
    with pytest.raises(BadInput) as caught:
        world.proxy.switch(new_environment(), [name], [Route("/", ("10.0.0.1:80",))])
    assert caught.value.code == "bad_hostname"


@pytest.mark.parametrize("host", ["..", ".", "*", "live", "x" * 300, "-", "a.b..", "[::1]:80"])
def test_strange_hostnames_lead_nowhere(world: CaddyWorld, environment: Environment, host: str) -> None:
    assert world.get(host).status == 404


@pytest.mark.parametrize("path", STRANGE_PATHS)
def test_strange_paths_reach_the_root_untouched(world: CaddyWorld, environment: Environment, path: str) -> None:
    answer = world.get(hostname(environment), path)
    assert (answer.status, answer.headers["X-Path"]) == (200, path)


def test_the_upstream_is_told_who_asks_and_gets_the_body_as_it_is(world: CaddyWorld, environment: Environment) -> None:
    told = world.get(hostname(environment), "/headers", **{"X-Forwarded-For": "6.6.6.6", "X-Own": "kept"}).body.decode()
    for line in (f"Host: {hostname(environment)}", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http"):
        assert line in told.splitlines()
    assert f"X-Forwarded-Host: {hostname(environment)}" in told
    assert "X-Own: kept" in told
    assert "Accept-Encoding" not in told
    body = os.urandom(300_000)
    assert world.get(hostname(environment), "/body", "POST", body).body == body


def test_a_body_reaches_the_living_target_whole(world: CaddyWorld) -> None:
    environment = new_environment()
    world.proxy.switch(environment, [hostname(environment)], [Route("/", (world.dead_target(), world.target()))])
    body = os.urandom(100_000)
    for _ in range(8):
        answer = world.get(hostname(environment), "/body", "POST", body)
        assert (answer.status, answer.body) == (200, body)


def test_a_request_that_reached_a_target_is_not_sent_again(world: CaddyWorld) -> None:
    environment = new_environment()
    upstreams = [world.upstream(), world.upstream()]
    world.proxy.switch(environment, [hostname(environment)], [Route("/", tuple(one.address for one in upstreams))])
    assert world.get(hostname(environment), "/crash").status == 502
    assert sum(upstream.paths["/crash"] for upstream in upstreams) == 1


def test_addresses_that_people_open(world: CaddyWorld) -> None:
    def url(**changes: Any) -> str:
        return CaddyProxy(world.layout, Settings(home=world.layout.home, **changes)).url("a.example")

    assert url() == f"http://a.example:{world.port}"
    assert url(proxy_listen="127.0.0.1:8181") == "http://a.example:8181"
    assert url(proxy_listen=":80") == "http://a.example"
    assert url(proxy_listen="[::]:8181", public_port=80) == "http://a.example"


# --- logs ------------------------------------------------------------------------------------------------------------


def test_the_logs_hold_no_headers_and_no_query(world: CaddyWorld, environment: Environment) -> None:
    headers = {"Authorization": "Bearer s3cret-a", "Cookie": "id=s3cret-b", "X-Api-Key": "s3cret-c"}
    for path in ("/status/201?token=s3cret-d", "/crash?token=s3cret-e"):
        world.get(hostname(environment), path, **headers)
    log = world.layout.access_log
    wait_until(lambda: b"/crash" in log.read_bytes())
    entries = [json.loads(line) for line in log.read_text().splitlines() if hostname(environment) in line]
    seen = [(entry["request"]["method"], entry["request"]["uri"], entry["status"]) for entry in entries]
    assert seen == [("GET", "/status/201", 201), ("GET", "/crash", 502)]
    assert all(0 < entry["duration"] < 5 for entry in entries)
    assert "EOF" in entries[1]["reason"]
    written = log.read_text() + (world.layout.log / "caddy.log").read_text()
    assert "s3cret" not in written
    assert stat.S_IMODE(log.stat().st_mode) & 0o077 == 0


def test_traffic_is_counted_across_rolled_logs(world: CaddyWorld, environment: Environment) -> None:
    name = hostname(environment)
    world.provoke(name, 500)
    mark = world.proxy.mark()
    files = len(list(world.layout.access_log.parent.iterdir()))
    world.provoke(name, 500)
    for _ in range(140):
        world.get(name, "/" + "x" * 20_000)
    world.provoke(name, 503)
    wait_until(lambda: world.proxy.traffic([name], mark).requests == 142)
    assert world.proxy.traffic([name], mark) == Traffic(142, 2)
    assert len(list(world.layout.access_log.parent.iterdir())) >= files + 2


# --- crashes and races -----------------------------------------------------------------------------------------------


def test_a_killed_caddy_comes_back_with_all_routes() -> None:
    with CaddyWorld.running() as world:
        environments = {new_environment(): world.target() for _ in range(3)}
        for environment, target in environments.items():
            world.proxy.switch(environment, [hostname(environment)], [Route("/", (target,))])
        world.caddy.kill()
        with pytest.raises(PlatformBroke) as caught:
            world.proxy.in_flight(list(environments.values()))
        assert caught.value.code == "proxy_unreachable"
        fresh = world.target()
        extra = new_environment()
        world.proxy.switch(extra, [hostname(extra)], [Route("/", (fresh,))])
        world.caddy.start()
        for environment, target in (environments | {extra: fresh}).items():
            assert world.ask(hostname(environment)) == target


class Child:
    """Another process that switches; see `proxy_child`."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.proxy_child", str(home)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, **order: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def receive(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def children(world: CaddyWorld) -> Iterator[list[Child]]:
    """Processes that are ready to switch."""
    children = [Child(world.layout.home) for _ in range(PROCESSES)]
    for child in children:
        assert child.receive() == "ready"
    yield children
    for child in children:
        child.end()


def order(environment: Environment, hostnames: list[str], routes: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"project": environment.project, "hostnames": hostnames, "routes": routes, **more}


def test_of_all_who_want_a_hostname_at_once_one_gets_it(world: CaddyWorld, children: list[Child]) -> None:
    for _ in range(5):
        wanted = {new_environment(): world.target() for _ in children}
        name = f"shop.{next(iter(wanted)).project}.example"
        for child, (environment, target) in zip(children, wanted.items(), strict=True):
            child.send(**order(environment, [name, hostname(environment)], {"/": target}))
        results = [child.receive() for child in children]
        assert sorted(results) == ["done"] + ["hostname_taken"] * (PROCESSES - 1)
        winner = list(wanted)[results.index("done")]
        assert world.ask(name) == wanted[winner]
        assert [bool(world.ask(hostname(environment))) for environment in wanted] == [
            environment == winner for environment in wanted
        ]


def test_many_processes_switch_at_once(world: CaddyWorld, children: list[Child]) -> None:
    shared = new_environment()
    own = {new_environment(): world.target() for _ in children}
    targets = [world.target() for _ in children]
    for child, (environment, target), contested in zip(children, own.items(), targets, strict=True):
        for _ in range(10):
            child.send(**order(environment, [hostname(environment)], {"/": target}))
            child.send(**order(shared, [hostname(shared)], {"/": contested}))
    assert {child.receive() for child in children for _ in range(20)} == {"done"}
    assert {world.ask(hostname(environment)): True for environment in own} == dict.fromkeys(own.values(), True)
    winner = world.ask(hostname(shared))
    assert winner in targets
    assert world.proxy.routes(shared) == [Route("/", (str(winner),))]


@pytest.mark.parametrize("change", ["first switch", "another switch", "removal"])
def test_a_process_killed_at_any_moment_leaves_the_old_or_the_new(
    world: CaddyWorld, children: list[Child], change: str
) -> None:
    environment = new_environment()
    name, more = hostname(environment), f"www.{environment.project}.example"
    old, new, api = world.target(), world.target(), world.target()

    def seen() -> tuple[str | None, ...]:
        return world.ask(name), world.ask(name, "/api"), world.ask(more)

    nothing = (None, None, None)
    before = nothing if change == "first switch" else (old, old, None)
    after = nothing if change == "removal" else (new, api, new)
    routes = {} if change == "removal" else {"/": new, "/api": api}
    outcomes = []
    for moment in range(1, 200):
        world.proxy.switch(environment, [name], [] if before == nothing else [Route("/", (old,))])
        children[0].send(**order(environment, [name, more], routes, killed_at=moment))
        result = children[0].receive()
        outcomes.append(seen())
        world.proxy.switch(environment, [name, more], [Route(prefix, (target,)) for prefix, target in routes.items()])
        assert seen() == after
        if result == "done":
            break
    assert result == "done"
    assert outcomes == sorted(outcomes, key=[before, after].index)
    assert set(outcomes) == {before, after}
