"""`login` and `logout`: a code for the browser, a token from a terminal or a pipe, and what is left of it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.cli import device_login
from tests.fakes.api import TOKEN, Canned, FakeApi
from tests.fakes.command_line import CommandLine, Ran


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as server:
        server.devices = True
        yield server


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    return CommandLine(monkeypatch, capsys, tmp_path)


class Terminal(io.StringIO):
    """Standard input where somebody sits."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(device_login, "SLOWER", 0.01)
    monkeypatch.setattr("typer.prompt", lambda *_words, **_options: TOKEN)


def stored(cli: CommandLine) -> dict[str, str] | None:
    path = cli.home / ".config/branchline/credentials.json"
    return json.loads(path.read_text()) if path.exists() else None


def asked(api: FakeApi) -> list[str]:
    return [path for _, path, _ in api.requests]


def logged_in(cli: CommandLine, api: FakeApi, *more: str) -> Ran:
    ran = cli("login", api.url, *more)
    assert ran.status == 0, ran.err
    assert stored(cli) == {"url": api.url, "token": TOKEN}
    assert TOKEN not in ran.out + ran.err
    return ran


def test_a_code_is_shown_and_waited_for(cli: CommandLine, api: FakeApi) -> None:
    api.device_answers = ["authorization_pending", "slow_down", "too_many_attempts", "unreachable", "token"]
    ran = logged_in(cli, api)
    assert "BCDF-GHJK" in ran.err
    assert f"{api.url}/device" in ran.err
    assert f"{api.url}/device?code=BCDF-GHJK" in ran.err
    assert "Logged in to" in ran.out
    assert asked(api).count("device/token") == 5


@pytest.mark.parametrize("code", ["access_denied", "expired_token"])
def test_what_ends_the_waiting(cli: CommandLine, api: FakeApi, code: str) -> None:
    api.device_answers = [code, "token"]
    ran = cli("login", api.url)
    assert (ran.status, f"This is {code}." in ran.err) == (3, True)
    assert stored(cli) is None


def test_nobody_waits_for_ever(cli: CommandLine, api: FakeApi) -> None:
    api.device_expires_in = 0
    ran = cli("login", api.url)
    assert (ran.status, "Nobody confirmed the code in time." in ran.err) == (3, True)
    assert f"branchline login {api.url}" in ran.err


def test_where_only_tokens_are_known_one_is_asked_for(cli: CommandLine, api: FakeApi) -> None:
    api.devices = False
    logged_in(cli, api)
    assert "device" not in asked(api)


def test_an_older_server_is_asked_for_nothing_new(cli: CommandLine, api: FakeApi) -> None:
    body = b'{"code": "unknown_path", "title": "There is nothing here.", "status": 404}'
    api.canned["login"] = Canned(404, body, "application/problem+json")
    logged_in(cli, api)


def test_a_token_is_asked_for_where_one_says_so(cli: CommandLine, api: FakeApi) -> None:
    logged_in(cli, api, "--token")
    assert asked(api) == ["whoami"]


def test_a_token_in_a_pipe_needs_no_browser(cli: CommandLine, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{TOKEN}\n"))
    logged_in(cli, api)
    assert asked(api) == ["whoami"]


def test_codes_from_a_hostile_server_move_no_cursor(cli: CommandLine, api: FakeApi) -> None:
    codes = {"device_code": "kept", "user_code": "\x1b[2JBCDF", "verification_uri": "\x1b]0;x\x07http://x"}
    codes |= {"verification_uri_complete": "http://x\x1b[1A", "expires_in": 0, "interval": 0}  # type: ignore[dict-item]
    api.canned["device"] = Canned(200, json.dumps(codes).encode())
    assert "\x1b" not in cli("login", api.url).err


def test_logging_out_revokes_and_forgets(cli: CommandLine, api: FakeApi) -> None:
    logged_in(cli, api, "--token")
    ran = cli("logout")
    assert (ran.status, api.logged_out, stored(cli)) == (0, 1, None)
    assert "Logged out of" in ran.out
    assert "sessions" not in asked(api)
    again = cli("logout")
    assert (again.status, "No login is stored here." in again.err) == (3, True)


def test_logging_out_everywhere(cli: CommandLine, api: FakeApi) -> None:
    logged_in(cli, api, "--token")
    ran = cli("logout", "--everywhere")
    assert (ran.status, api.logged_out, stored(cli)) == (0, 1, None)
    assert "Logged out of 3 browsers." in ran.out


def test_a_token_that_is_worth_nothing_is_forgotten_all_the_same(cli: CommandLine, api: FakeApi) -> None:
    logged_in(cli, api, "--token")
    body = b'{"code": "unauthenticated", "title": "This needs a valid token.", "status": 401}'
    api.canned["logout"] = Canned(401, body, "application/problem+json")
    ran = cli("logout")
    assert (ran.status, stored(cli)) == (0, None)
    assert "worth nothing" in ran.err


def test_a_platform_that_is_away_keeps_the_login(cli: CommandLine, api: FakeApi) -> None:
    logged_in(cli, api, "--token")
    api.canned["logout"] = Canned(503, b"away")
    assert cli("logout").status == 4
    assert stored(cli) is not None


def test_the_machines_own_token_is_not_revoked(cli: CommandLine, api: FakeApi) -> None:
    home = cli.folder / "home"
    home.mkdir()
    port = int(api.url.rpartition(":")[2])
    names = ("server", "proxy", "registry", "openbao", "openbao_cluster")
    ports = dict.fromkeys([*names, *(f"postgres_{one}" for one in ("platform", "nonprod", "production"))], port)
    (home / "stack.json").write_text(json.dumps({"instance": "t", "subnet": "10.9.0.0/16", "ports": ports}))
    (home / "admin.token").write_text(TOKEN)
    cli.patch.setenv("BRANCHLINE_HOME", str(home))
    logged_in(cli, api, "--token")
    assert cli("logout").status == 0
    assert (api.logged_out, stored(cli)) == (0, None), "it is the way in of whoever has the machine"
