"""The server as a process: how it starts, what it leaves, how it ends, and why it does not start."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from branchline.config_records import Done
from branchline.domain.access import Actor, Role, Scope
from branchline.domain.audit import Wanted
from branchline.domain.config import Secret
from branchline.domain.deployment import State, Trigger
from branchline.domain.environment import Destination, Tier
from branchline.domain.layers import Layer
from branchline.layout import Layout, Ports
from branchline.ports import Revision
from branchline.settings import Settings
from branchline.stack.openbao import OpenBao
from branchline.store.database import SqlStore
from branchline.wire import LogEvent
from tests.integration.served import eventually
from tests.openbao import RealConfigStore

IN_MEMORY = """
import sys
from pathlib import Path
from branchline.server import logs, web
from tests.fakes.platform import FakePlatform
logs.configure()
platform = FakePlatform()
platform.known_tokens.clear()
platform.repositories["shop"] = "/srv/shop.git"
platform.deployed("shop", "develop", "refs/heads/develop", "a" * 40)
platform.pauses["projects.list"] = 60
web.serve(platform, web.bind(sys.argv[1]), Path(sys.argv[2]))
"""


class Process(subprocess.Popen[bytes]):
    """A Python process of ours. What it says goes to a file: nobody reads a pipe here, and a full one would stop it."""

    def __init__(self, *words: str, home: Path, **more: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("BRANCHLINE_")}
        self.log = home / f"said-{uuid4().hex}.log"
        with self.log.open("wb") as log:
            super().__init__(
                [sys.executable, *words],
                env=kept | {"BRANCHLINE_HOME": str(home)} | more,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )

    def said(self, seconds: float = 20) -> list[dict[str, object]]:
        """All that it wrote, once it has ended; every line is JSON."""
        self.wait(seconds)
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def process(*words: str, home: Path, **more: str) -> Iterator[Process]:
    """A process that ends with the test at the latest."""
    with Process(*words, home=home, **more) as child:
        try:
            yield child
        finally:
            child.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def in_memory(home: Path) -> Iterator[tuple[Process, str]]:
    address = f"127.0.0.1:{free_port()}"
    with process("-c", IN_MEMORY, address, str(home), home=home) as child:
        eventually(lambda: answers(f"http://{address}"), 20)
        yield child, f"http://{address}"


def lay_out(home: Path, port: int) -> None:
    names = Ports.__dataclass_fields__
    Layout(home, "bl-test", IPv4Network("10.99.0.0/16"), Ports(**dict.fromkeys(names, port))).save()


def token_of(store: SqlStore, role: Role) -> str:
    """A new token in the real store."""
    token = f"bl_{uuid4().hex}"
    with store.transaction() as records:
        digest = hashlib.sha256(token.encode()).hexdigest()
        records.tokens.add(token[-12:], digest, role=role, scope=Scope())
    return token


def test_the_first_token_is_left_for_the_admin_alone(tmp_path: Path) -> None:
    with in_memory(tmp_path) as (child, url):
        file = tmp_path / "admin.token"
        assert file.stat().st_mode & 0o777 == 0o600
        token = file.read_text().strip()
        me = httpx.get(f"{url}/api/v1/whoami", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
        assert me.json()["role"] == "admin"
        child.send_signal(signal.SIGTERM)
        lines = child.said()
        assert child.returncode == 0
        assert token not in str(lines)
        assert [line["event"] for line in lines if line["event"] != "request"] == ["first_token", "serving", "stopping"]


def test_small_answers_do_not_wait_for_acknowledgements(tmp_path: Path) -> None:
    with in_memory(tmp_path) as (_, url), httpx.Client(base_url=url, trust_env=False) as kept_alive:
        seconds = []
        for _ in range(30):
            began = time.monotonic()
            kept_alive.get("/healthz")
            seconds.append(time.monotonic() - began)
        assert min(seconds[1:]) < 0.03, "each answer waits for 40 ms where TCP_NODELAY is missing"


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_stopping_ends_streams_and_does_not_wait_for_what_hangs(tmp_path: Path, asked: signal.Signals) -> None:
    with in_memory(tmp_path) as (child, url):
        headers = {"Authorization": f"Bearer {(tmp_path / 'admin.token').read_text().strip()}"}
        ended: list[str] = []
        hung: list[httpx.Response] = []

        def follow() -> None:
            with httpx.stream("GET", f"{url}/api/v1/deployments/1/events", headers=headers, trust_env=False) as stream:
                ended.extend(stream.iter_lines())
            ended.append("closed")

        def hang() -> None:
            hung.append(httpx.get(f"{url}/api/v1/projects", headers=headers, trust_env=False, timeout=30))

        threads = [threading.Thread(target=follow), threading.Thread(target=hang)]
        for one in threads:
            one.start()
        time.sleep(1)
        began = time.monotonic()
        child.send_signal(asked)
        threads[0].join(5)
        assert ended[-1] == "closed"
        assert time.monotonic() - began < 2.5
        assert child.wait(10) == 0
        assert time.monotonic() - began < 6
        threads[1].join(5)
        assert [(answer.status_code, answer.json()["code"]) for answer in hung] == [(503, "stopping")]


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        lay_out(tmp_path, port)
        with process("-m", "branchline.server.main", home=tmp_path) as child:
            (line,) = child.said()
            assert child.returncode == 4
    assert line["code"] == "port_taken"
    assert str(port) in str(line["sentence"])
    assert line["hint"]
    assert not (tmp_path / "admin.token").exists()


@pytest.mark.parametrize(
    ("settings", "status", "code"),
    [
        ({}, 4, "not_set_up"),
        ({"BRANCHLINE_DEPLOYMENTS_AT_ONCE": "many"}, 2, "bad_settings"),
        ({"BRANCHLINE_SERVER_LISTEN": "somewhere"}, 2, "bad_listen"),
        ({"BRANCHLINE_SERVER_LISTEN": "203.0.113.1:8700"}, 4, "cannot_listen"),
        ({"BRANCHLINE_TRUSTED_PROXIES": "somewhere"}, 2, "bad_settings"),
        ({"BRANCHLINE_SERVER_LISTEN": "127.0.0.1:0", "BRANCHLINE_OIDC_ISSUER": "http://a.example"}, 2, "bad_settings"),
    ],
)
def test_why_it_does_not_start(tmp_path: Path, settings: dict[str, str], status: int, code: str) -> None:
    if settings.keys() & {"BRANCHLINE_SERVER_LISTEN", "BRANCHLINE_TRUSTED_PROXIES"}:
        lay_out(tmp_path, 1)
    with process("-m", "branchline.server.main", home=tmp_path, **settings) as child:
        (line,) = child.said()
        assert (child.returncode, line["code"]) == (status, code)


@pytest.mark.stack
def test_around_the_real_platform(settings: Settings, home_layout: Layout, sql_store: SqlStore) -> None:
    # others may have made tokens in this database before, and then the server makes no first one
    token = token_of(sql_store, Role.ADMIN)
    url = f"http://127.0.0.1:{home_layout.ports.server}"
    provider = {"BRANCHLINE_OIDC_ISSUER": "https://id.example.com", "BRANCHLINE_OIDC_CLIENT_ID": "branchline"}
    with process("-m", "branchline.server.main", home=settings.home, **provider) as child:
        eventually(lambda: answers(url), 30)
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, trust_env=False) as api:
            assert api.get("/api/v1/whoami").json()["role"] == "admin"
            added = api.post("/api/v1/projects", json={"name": "shop", "repository": "/srv/none/shop.git"})
            assert added.status_code in {201, 409}
            assert "shop" in [one["name"] for one in api.get("/api/v1/projects").json()]
            assert api.get("/api/v1/deployments/9999999999999/events").json()["status"] == 404
            assert api.get("/api/v1/projects/" + "x" * 300).status_code in {404, 422}
            assert "branchline_database_up 1.0" in api.get("/metrics").text
            assert api.get("/api/v1/login").json()["providers"] == [{"id": "oidc", "title": "id.example.com"}]
            assert api.get("/login").text.count("Log in with id.example.com") == 1
        child.send_signal(signal.SIGTERM)
        lines = child.said()
        assert child.returncode == 0
    assert not [line for line in lines if line["level"] in {"error", "warning"}]


@pytest.mark.stack
def test_the_register_gets_what_a_killed_server_owes_it(
    settings: Settings, home_layout: Layout, sql_store: SqlStore, openbao: OpenBao
) -> None:
    """Nobody asks for the layer's history meanwhile."""
    name, writer = f"s{uuid4().hex[:8]}", RealConfigStore(openbao, home_layout).writer()
    layer = Layer(name, "production")
    with sql_store.transaction() as records:
        shop = records.projects.add(name, "/srv/shop.git")
        begun = datetime.now(UTC) - timedelta(seconds=90)
        records.config.begin(shop, layer, 0, Actor("ada", "token ada"), {"A": Done.SET}, at=begun)
    assert writer.write(layer, {"A": Secret("x")}, 0) == 1

    def told() -> list[tuple[str, object]]:
        with sql_store.transaction() as records:
            lines = records.register.page(Wanted(name), None, 9).items
            return [(line.actor, line.detail["version"]) for line in lines]

    listen = f"127.0.0.1:{free_port()}"
    with process("-m", "branchline.server.main", home=settings.home, BRANCHLINE_SERVER_LISTEN=listen):
        eventually(lambda: told() == [("ada", 1)], 30)


@pytest.mark.stack
def test_following_a_deployment_of_the_real_platform(
    settings: Settings, home_layout: Layout, sql_store: SqlStore
) -> None:
    with sql_store.transaction() as records:
        project = records.projects.add(f"followed-{os.getpid()}", "/srv/none.git")
        environment = records.environments.ensure(project, Destination("develop", Tier.NONPROD))
        revision = Revision("refs/heads/develop", "a" * 40, "A subject")
        asked = records.deployments.add(environment, revision, actor="ada", trigger=Trigger.CLI, reason="")
    delays: list[float] = []

    def carry() -> None:
        for number in range(20):
            time.sleep(0.1)
            sql_store.append_log(asked.id, [(datetime.now(UTC), "build", f"{number} {time.time()}")])
        with sql_store.transaction() as records:
            records.deployments.finish(asked.id, State.CANCELLED)

    url = f"http://127.0.0.1:{home_layout.ports.server}"
    with process("-m", "branchline.server.main", home=settings.home) as child:
        eventually(lambda: answers(url), 30)
        headers = {"Authorization": f"Bearer {token_of(sql_store, Role.VIEWER)}"}
        carrier = threading.Thread(target=carry)
        carrier.start()
        with httpx.stream(
            "GET", f"{url}/api/v1/deployments/{asked.id}/events", headers=headers, trust_env=False, timeout=20
        ) as stream:
            told = [LogEvent.model_validate_json(x[6:]) for x in _timed(stream.iter_lines(), delays)]
        carrier.join()
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    assert [one.line.text.split()[0] for one in told if one.line] == [str(number) for number in range(20)]
    assert told[-1].end
    assert told[-1].end.state is State.CANCELLED
    assert sorted(delays)[10] < 0.3


def _timed(lines: Iterator[str], delays: list[float]) -> Iterator[str]:
    """The data of a stream; notes for each line how long ago it was written."""
    for line in lines:
        if line.startswith("data: "):
            if '"text":"' in line:
                delays.append(time.time() - float(line.split('"text":"')[1].split()[1].split('"')[0]))
            yield line
