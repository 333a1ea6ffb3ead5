"""`vault login`: the operator's way into the embedded OpenBao, and a token that only shows where it is asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from branchline.layout import Layout, Ports
from tests.fakes.command_line import CommandLine

TOKEN = "s.a-token-that-is-shown-on-request"


class Door(HTTPServer):
    """OpenBao's login for the operator, and nothing else."""

    def __init__(self, key: ECKey) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = key
        self.status = 200
        self.asked: list[dict[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Door

    def log_message(self, format: str, *args: Any) -> None:
        """Tests look at `asked` instead."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        claims = jwt.decode(body["jwt"], self.server.key, algorithms=["ES256"]).claims
        self.server.asked.append({"path": self.path, "role": body["role"], "sub": claims["sub"]})
        content = json.dumps({"auth": {"client_token": TOKEN}}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def door() -> Iterator[Door]:
    with Door(ECKey.generate_key("P-256")) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def layout(tmp_path: Path, door: Door) -> Layout:
    ports = dict.fromkeys(Ports.__annotations__, 20_000) | {"openbao": door.server_address[1]}
    made = Layout(tmp_path / "home", "bltest", IPv4Network("10.201.0.0/16"), Ports(**ports))
    (made.home / "keys").mkdir(parents=True)
    made.save()
    (made.home / "keys" / "operator.pem").write_bytes(door.key.as_pem(private=True))
    return made


@pytest.fixture
def cli(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> CommandLine:
    line = CommandLine(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("BRANCHLINE_HOME", str(layout.home))
    monkeypatch.delenv("BRANCHLINE_VAULT_URL", raising=False)
    return line


def test_a_token_is_made_and_shown_where_it_is_asked_for(cli: CommandLine, layout: Layout, door: Door) -> None:
    address = f"http://127.0.0.1:{layout.ports.openbao}"
    ran = cli("vault", "login")
    assert (ran.status, ran.out, door.asked) == (0, f"{address}\n", [])
    assert "--export" in ran.err
    ran = cli("vault", "login", "--export")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"export BAO_ADDR={address}\nexport BAO_TOKEN={TOKEN}\n"
    assert door.asked == [{"path": "/v1/auth/jwt-operator/login", "role": "operator", "sub": "operator"}]


def test_whoever_may_not_read_the_key_does_not_get_in(cli: CommandLine, layout: Layout, door: Door) -> None:
    (layout.home / "keys" / "operator.pem").unlink()
    ran = cli("vault", "login", "--export")
    assert (ran.status, ran.out) == (4, "")
    assert "The key operator.pem cannot be read" in ran.err
    assert door.asked == []


def test_a_door_that_stays_shut_is_told_of(cli: CommandLine, door: Door) -> None:
    door.status = 503
    ran = cli("vault", "login", "--export")
    assert (ran.status, ran.out) == (4, "")
    assert "it does not let the operator in (HTTP 503)" in ran.err
    assert TOKEN not in ran.err


@pytest.mark.parametrize("words", [(), ("--export",)])
def test_a_vault_of_ones_own_has_no_such_door(
    cli: CommandLine, door: Door, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("BRANCHLINE_VAULT_URL", "https://vault.example.com:8200")
    ran = cli("vault", "login", *words)
    assert (ran.status, ran.out) == (2, "")
    assert "a Vault of your own" in ran.err
    assert door.asked == []
