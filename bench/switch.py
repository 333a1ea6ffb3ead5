"""How fast traffic is switched, whether anybody notices, and what the proxy costs beside a bare static Caddy route."""

from __future__ import annotations

import http.client
import itertools
import json
import multiprocessing
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psutil

import report
from branchline.adapters.caddy import CaddyProxy
from branchline.domain.environment import Environment, Tier
from branchline.layout import Layout
from branchline.ports import Route
from branchline.settings import Settings
from branchline.stack import binaries, first_start
from branchline.stack.caddy import Caddy
from branchline.stack.part import running
from pipeline import requests_per_second

OCCUPIED = (1, 64, 128, 1000)
ROUNDS = 10
SECONDS = 0.6
SWITCHES = 200


def environment(number: int) -> Environment:
    return Environment(number, f"shop{number}", "develop", Tier.NONPROD, number)


def hostname(number: int) -> str:
    return f"develop-shop{number}.localhost"


def ask(port: int, host: str) -> bytes:
    """One request on a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/", headers={"Host": host})
    body = connection.getresponse().read()
    connection.close()
    return body


def visit(port: int, host: str, stay: bool, over: Event, results: Queue[tuple[int, int]]) -> None:
    """Keep asking, on one connection or on a new one each time; report how many requests there were and failed."""
    asked = failed = 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    while not over.is_set():
        try:
            connection.request("GET", "/", headers={"Host": host})
            answer = connection.getresponse()
            answer.read()
            failed += answer.status != 200
        except (OSError, http.client.HTTPException):
            failed += 1
            connection.close()
        asked += 1
        if not stay:
            connection.close()
    results.put((asked, failed))


@contextmanager
def visitors(port: int, host: str, people: int = 4) -> Iterator[list[tuple[int, int]]]:
    """People in processes of their own; the list is filled with what each of them saw, at the end."""
    context = multiprocessing.get_context("spawn")
    over, results, seen = context.Event(), context.Queue(), []
    processes = [
        context.Process(target=visit, args=(port, host, number % 2 == 0, over, results)) for number in range(people)
    ]
    for process in processes:
        process.start()
    time.sleep(2)
    yield seen
    over.set()
    seen.extend(results.get(timeout=30) for _ in processes)
    for process in processes:
        process.join(30)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def upstreams(ports: Sequence[int]) -> dict[str, Any]:
    """A Caddy document of servers that answer at once with their own port."""
    return {
        "admin": {"disabled": True},
        "logging": {"logs": {"default": {"level": "ERROR"}}},
        "apps": {
            "http": {
                "servers": {
                    f"upstream{port}": {
                        "listen": [f"127.0.0.1:{port}"],
                        "automatic_https": {"disable": True},
                        "routes": [{"handle": [{"handler": "static_response", "body": str(port)}]}],
                    }
                    for port in ports
                }
            }
        },
    }


class WithStaticRoutes(Caddy):
    """The platform's proxy that also listens where the route is written into its document: without and with a log.

    It is one process, so that whatever else this machine does hits all of them alike.
    """

    def __init__(self, layout: Layout, settings: Settings, targets: Sequence[int], plain: int, logged: int) -> None:
        super().__init__(layout, settings, first_start.account())
        self._targets, self._plain, self._logged = targets, plain, logged

    def prepare(self) -> None:
        super().prepare()
        path = self._folder / "caddy.json"
        content = json.loads(path.read_text())
        servers = content["apps"]["http"]["servers"]
        dials = [{"dial": f"127.0.0.1:{port}"} for port in self._targets]
        route = {"match": [{"host": [hostname(0)]}], "handle": [{"handler": "reverse_proxy", "upstreams": dials}]}
        base = {"protocols": ["h1"], "automatic_https": {"disable": True}, "routes": [route]}
        servers["plain"] = {"listen": [f"127.0.0.1:{self._plain}"], **base}
        servers["logged"] = {"listen": [f"127.0.0.1:{self._logged}"], **base, "logs": servers["traffic"]["logs"]}
        path.write_text(json.dumps(content))


@contextmanager
def answering(layout: Layout, ports: Sequence[int]) -> Iterator[None]:
    """Servers on these ports that answer at once with their own port: a Caddy of their own."""
    path = layout.home / "upstreams.json"
    path.write_text(json.dumps(upstreams(ports)))
    with (layout.log / "upstreams.log").open("wb") as log:
        process = subprocess.Popen([binaries.caddy(layout.home), "run", "--config", path], stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def await_answer(port: int, host: str) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            ask(port, host)
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing answers on port {port}")


def switch_times(
    proxy: CaddyProxy, port: int, targets: Sequence[int], switches: int
) -> tuple[list[float], list[float]]:
    """Milliseconds that each call took, and from the call until a request was answered by the new target."""
    calls, seen = [], []
    for _, target in zip(range(switches), itertools.cycle(targets), strict=False):
        began = time.perf_counter()
        proxy.switch(environment(0), [hostname(0)], [Route("/", (f"127.0.0.1:{target}",))])
        calls.append((time.perf_counter() - began) * 1000)
        while ask(port, hostname(0)) != str(target).encode():
            pass
        seen.append((time.perf_counter() - began) * 1000)
    return calls, seen


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="bl-bench-"))
    try:
        layout = first_start.establish(home)
        settings = Settings(home=home)
        *targets, plain, logged = free_ports(4)
        with (
            running(WithStaticRoutes(layout, settings, targets, plain, logged), layout.log) as ours,
            answering(layout, targets),
        ):
            for port in (*targets, plain, logged):
                await_answer(port, hostname(0))
            assert ours.process
            process = psutil.Process(ours.process.identity.pid)
            measure(CaddyProxy(layout, settings), layout.ports.proxy, process, targets, plain, logged)
    finally:
        shutil.rmtree(home)


def measure(
    proxy: CaddyProxy, port: int, process: psutil.Process, targets: Sequence[int], plain: int, logged: int
) -> None:
    """Run everything against the servers that are up, and report."""
    figures = {"memory_idle_mb": process.memory_info().rss / 1e6}
    routes = [Route("/", tuple(f"127.0.0.1:{target}" for target in targets))]
    several = [*routes, Route("/api", routes[0].targets), Route("/api/v1", routes[0].targets)]

    calls, seen = switch_times(proxy, port, targets, SWITCHES)
    figures |= {"switch_call_ms": statistics.median(calls), "switch_seen_ms": statistics.median(seen)}
    figures |= {"switch_seen_ms_99": report.percentile(seen, 99)}
    with visitors(port, hostname(0)) as saw:
        _, seen = switch_times(proxy, port, targets, SWITCHES)
    figures |= {"switch_under_load_ms": statistics.median(seen), "switch_under_load_ms_99": report.percentile(seen, 99)}
    figures |= {"requests_under_load": sum(asked for asked, _ in saw), "failed_requests": sum(bad for _, bad in saw)}

    one = {
        "static": (plain, hostname(0), "/"),
        "static_logged": (logged, hostname(0), "/"),
        "proxy": (port, hostname(0), "/"),
    }
    many = one | {
        "proxy_several_routes": (port, "several.localhost", "/"),
        "proxy_several_routes_deep_path": (port, "several.localhost", "/static/js/a/b/c/d/app.js"),
    }
    proxy.switch(Environment(-1, "several", "develop", Tier.NONPROD, 1), ["several.localhost"], several)
    ratios: dict[str, float] = {}
    made = 0
    for occupied in OCCUPIED:
        for number in range(made, occupied):
            proxy.switch(environment(number), [hostname(number)], routes)
        made = occupied
        rates: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for name, (where, host, path) in (many if occupied == OCCUPIED[-1] else one).items():
                rates.setdefault(name, []).append(requests_per_second(where, host, path, SECONDS))
        figures[f"memory_{occupied}_mb"] = process.memory_info().rss / 1e6
        for name, found in rates.items():
            figures[f"{name}_{occupied}_rps"] = statistics.median(found)
            for base in ("static", "static_logged"):
                if not name.startswith("static"):
                    ratios[f"{name}_{occupied}_to_{base}"] = statistics.median(
                        ours / bare for ours, bare in zip(found, rates[base], strict=True)
                    )
    report.write("switch", figures, ratios)


if __name__ == "__main__":
    main()
