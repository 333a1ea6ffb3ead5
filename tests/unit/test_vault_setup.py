"""Setting up a Vault of somebody else's: what would be written, what is compared, and how it fails."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from branchline.domain.errors import Conflict
from branchline.layout import Layout, Ports
from branchline.stack.openbao_rules import MOUNTS, TIERS, rotated, rules
from branchline.stack.vault_setup import Outcome, bring_about, differs
from tests.fakes.command_line import CommandLine, Ran

TOKEN = "hvs.a-token-that-nobody-may-see"
IN_BOTH = {"create", "read", "update", "patch", "delete", "list", "sudo", "deny"}
"""The capabilities that HashiCorp's Vault knows, as well as OpenBao."""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "home", "bltest", IPv4Network("10.201.0.0/16"), Ports(*range(20_000, 20_008)))
    (made.home / "keys").mkdir(parents=True)
    made.save()
    for name in ("server", *TIERS, "operator"):
        (made.home / "keys" / f"{name}.pub").write_text(
            f"-----BEGIN PUBLIC KEY-----\n{name}\n-----END PUBLIC KEY-----\n"
        )
    return made


@pytest.fixture
def cli(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> CommandLine:
    line = CommandLine(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("BRANCHLINE_HOME", str(layout.home))
    for name in ("VAULT_TOKEN", "BRANCHLINE_VAULT_URL"):
        monkeypatch.delenv(name, raising=False)
    return line


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))


# --- the dry run -----------------------------------------------------------------------------------------------------


def test_a_dry_run_needs_no_server_and_no_token(cli: CommandLine) -> None:
    ran = cli("vault", "setup", "--dry-run")
    assert (ran.status, ran.err) == (0, "")
    assert re.findall(r'^write "(.*)" \{$', ran.out, re.MULTILINE) == [
        "sys/mounts/nonprod",
        "sys/mounts/production",
        "sys/mounts/register",
        "sys/mounts/register-signer",
        "sys/auth/jwt-server",
        "sys/auth/jwt-nonprod",
        "sys/auth/jwt-production",
        "auth/jwt-server/config",
        "sys/policies/acl/config-writer",
        "auth/jwt-server/role/config-writer",
        "register/config",
        "register-signer/keys/head",
        "auth/jwt-nonprod/config",
        "sys/policies/acl/runtime-nonprod",
        "auth/jwt-nonprod/role/runtime",
        "nonprod/config",
        "auth/jwt-production/config",
        "sys/policies/acl/runtime-production",
        "auth/jwt-production/role/runtime",
        "production/config",
    ]
    assert cli("vault", "setup", "--dry-run") == ran


def test_a_dry_run_is_plain_hcl(cli: CommandLine) -> None:
    told = cli("vault", "setup", "--dry-run").out
    assert 'write "sys/mounts/nonprod" {\n  type = "kv"\n  options = { version = "2" }\n}\n' in told
    assert 'write "production/config" {\n  max_versions = 500\n}' in told
    assert r'jwt_validation_pubkeys = ["-----BEGIN PUBLIC KEY-----\nnonprod\n-----END PUBLIC KEY-----\n"]' in told
    assert (
        'write "sys/policies/acl/runtime-production" {\n  policy = <<EOT\n'
        'path "production/data/{{identity.entity.aliases.ACCESSOR_OF_JWT_PRODUCTION.metadata.project}}/env/'
        '{{identity.entity.aliases.ACCESSOR_OF_JWT_PRODUCTION.metadata.env}}" { capabilities = ["read"] }\nEOT\n}\n'
    ) in told
    assert (
        "\n# Not among these: an OpenBao takes layers of up to some 500 keys, unless its listener has `max_re" in told
    )
    assert "# ACCESSOR_OF_JWT_NONPROD and ACCESSOR_OF_JWT_PRODUCTION stand for" in told


def test_nothing_is_written_that_only_one_of_the_two_servers_has(cli: CommandLine) -> None:
    told = cli("vault", "setup", "--dry-run").out
    capabilities = {one for found in re.findall(r"capabilities = \[(.*?)\]", told) for one in json.loads(f"[{found}]")}
    assert capabilities <= IN_BOTH
    for word in ("operator", "eval_type", "cel", "initialize", "seal", "PRIVATE"):
        assert word not in told


def test_a_dry_run_without_keys_says_what_makes_them(cli: CommandLine, layout: Layout) -> None:
    (layout.home / "keys" / "nonprod.pub").unlink()
    ran = cli("vault", "setup", "--dry-run")
    assert (ran.status, ran.out) == (4, "")
    assert "The public key nonprod.pub cannot be read" in ran.err
    assert "Hint: `branchline up` makes " in ran.err
    (layout.home / "stack.json").unlink()
    assert "Start one with `branchline up`" in cli("vault", "setup", "--dry-run").err


# --- what is compared ------------------------------------------------------------------------------------------------


class FakeVault:
    """Remembers what was written, and tells it as servers do: durations in seconds, defaults beside."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {"sys/mounts": {}, "sys/auth": {}}
        self.written: list[str] = []

    def read(self, path: str) -> Mapping[str, Any] | None:
        return self.kept.get(path)

    def write(self, path: str, data: Mapping[str, Any]) -> None:
        self.written.append(path)
        kind, _, name = path.rpartition("/")
        if kind in {"sys/mounts", "sys/auth"}:
            self.kept[kind][f"{name}/"] = {**data, "accessor": f"accessor-{name}"}
        told = {key: 600 if item == "10m" else item for key, item in data.items()}
        self.kept[path] = {"local": False, **self.kept.get(path, {}), **told}

    def bring_about(self, layout: Layout) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        bring_about(
            self,
            MOUNTS,
            lambda accessors: rules(layout, accessors),
            lambda outcome, path: outcomes.__setitem__(path, outcome),
            rotated(layout),
        )
        return outcomes


def test_a_second_run_writes_nothing(layout: Layout) -> None:
    vault = FakeVault()
    first = vault.bring_about(layout)
    assert set(first.values()) == {Outcome.MADE}
    assert list(first) == vault.written
    assert "accessor-jwt-nonprod.metadata.project" in vault.kept["sys/policies/acl/runtime-nonprod"]["policy"]
    vault.written = []
    assert vault.bring_about(layout) == dict.fromkeys(first, Outcome.UNCHANGED)
    assert vault.written == []


def test_only_what_differs_is_written_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[tuple[float, list[str]]] = []
    monkeypatch.setattr("time.sleep", lambda seconds: waited.append((seconds, list(vault.written))))
    vault = FakeVault()
    vault.bring_about(layout)
    vault.written = []
    vault.kept["sys/policies/acl/config-writer"]["policy"] = 'path "*" { capabilities = ["read"] }'
    vault.kept["nonprod/config"]["max_versions"] = 10
    (layout.home / "keys" / "production.pub").write_text("another key")
    changed = ["sys/policies/acl/config-writer", "nonprod/config", "auth/jwt-production/config"]
    assert [path for path, one in vault.bring_about(layout).items() if one is Outcome.CHANGED] == changed
    # the keys of a login once more, when those who were logging in meanwhile have ended
    assert vault.written == [*changed, "auth/jwt-production/config"]
    assert waited == [(1.0, changed)]


def test_keys_that_are_being_rotated_are_written_once_more_in_any_case(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    vault = FakeVault()
    (layout.home / "keys" / "nonprod.next.pub").write_text("the next key")
    vault.bring_about(layout)
    vault.written = []
    assert set(vault.bring_about(layout).values()) == {Outcome.UNCHANGED}
    assert vault.written == ["auth/jwt-nonprod/config"]


@pytest.mark.parametrize(
    ("kind", "name", "found", "told"),
    [
        ("sys/mounts", "nonprod/", {"type": "kv", "options": {"version": "1"}}, "nonprod/ is kv version 1, not 2"),
        ("sys/mounts", "nonprod/", {"type": "kv", "options": None}, "nonprod/ is kv version 1, not 2"),
        ("sys/mounts", "production/", {"type": "pki"}, "production/ is of type pki, not kv"),
        ("sys/mounts", "nonprod/shop/", {"type": "kv"}, "nonprod/shop/ lies within nonprod/"),
        ("sys/auth", "jwt-server/", {"type": "oidc"}, "jwt-server/ is of type oidc, not jwt"),
        ("sys/auth", "jwt-nonprod/a/", {"type": "jwt"}, "jwt-nonprod/a/ lies within jwt-nonprod/"),
    ],
)
def test_what_is_in_the_way_is_left_alone(
    layout: Layout, kind: str, name: str, found: dict[str, Any], told: str
) -> None:
    vault = FakeVault()
    vault.kept[kind][name] = found
    with pytest.raises(Conflict) as caught:
        vault.bring_about(layout)
    assert caught.value.code == "mount_in_the_way"
    assert told in str(caught.value)
    assert vault.written == []


@pytest.mark.parametrize(
    ("wanted", "found", "other"),
    [
        ("10m", 600, False),
        ("15m", 600, True),
        ("-1", -1, False),
        ("text", "text\n", False),
        (["key\n"], ["key"], False),
        (["key"], ["key", "other"], True),
        (True, True, False),
        (True, None, True),
        ({"tier": "nonprod"}, {"tier": "nonprod"}, False),
    ],
)
def test_what_is_the_same_to_a_server(wanted: object, found: object, other: bool) -> None:
    assert differs({"a": wanted}, {"a": found, "b": 1}) is other


# --- how it fails ----------------------------------------------------------------------------------------------------


class Spoken:
    """A server that says what the test wants of it, and knows what it heard."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, Any]]] = {
            "sys/health": [(200, {"initialized": True, "sealed": False, "version": "1.99.0"})],
            "auth/token/lookup-self": [(200, {"data": {}})],
            "sys/mounts": [(200, {"data": {}})],
            "sys/auth": [(200, {"data": {f"jwt-{tier}/": {"type": "jwt", "accessor": "x"} for tier in TIERS}})],
            "sys/capabilities-self": [(403, {"errors": ["permission denied"]})],
        }
        self.heard: list[tuple[str, str]] = []
        self.bodies: dict[str, Any] = {}
        spoken = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.removeprefix("/v1/")
                spoken.heard.append((self.command, path))
                spoken.bodies[path] = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                default = (404, {"errors": []}) if self.command == "GET" else (204, None)
                answers = spoken.answers.get(path, [default])
                status, said = answers.pop(0) if len(answers) > 1 else answers[0]
                content = b"" if said is None else said.encode() if isinstance(said, str) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if status == 307:
                    self.send_header("Location", f"{spoken.url}/elsewhere")
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def written(self) -> list[str]:
        asked = {"sys/capabilities-self", "auth/token/revoke-self"}
        return [path for method, path in self.heard if method == "POST" and path not in asked]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def spoken() -> Iterator[Spoken]:
    server = Spoken()
    yield server
    server.close()


@pytest.fixture
def set_up(cli: CommandLine, spoken: Spoken, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*words: str) -> Ran:
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        ran = cli("vault", "setup", "--address", spoken.url + "/", *words)
        assert TOKEN not in ran.out + ran.err
        assert "Traceback" not in ran.err
        return ran

    return run


HEALTHY = {"initialized": True, "sealed": False}


@pytest.mark.parametrize(
    ("path", "status", "said", "ends", "told"),
    [
        ("sys/health", 501, {**HEALTHY, "initialized": False}, 4, "was never initialised"),
        ("sys/health", 503, {**HEALTHY, "sealed": True}, 4, "is sealed"),
        ("sys/health", 473, HEALTHY, 4, "is a standby for reading"),
        ("sys/health", 307, None, 4, "sends us elsewhere"),
        ("sys/health", 200, "<html>", 4, "gives answers that no Vault gives"),
        ("sys/health", 200, [1], 4, "gives answers that no Vault gives"),
        ("sys/health", 404, {"errors": []}, 4, "gives answers that no Vault gives"),
        ("auth/token/lookup-self", 403, {"errors": ["permission denied"]}, 3, "refuses this token"),
        ("sys/mounts", 403, {"errors": ["permission denied"]}, 3, "does not let this token read sys/mounts"),
        ("sys/mounts", 500, {"errors": ["internal error"]}, 4, "sys/mounts: internal error."),
        ("sys/mounts", 200, {"data": 1}, 4, "gives answers that no Vault gives"),
        ("sys/capabilities-self", 200, {"data": {"sys/mounts/nonprod": ["deny"]}}, 3, "rights for sys/mounts/nonprod."),
        ("sys/policies/acl/config-writer", 200, {"data": {"policy": ""}}, 2, "of the platform's names"),
    ],
)
def test_a_vault_that_will_not(
    set_up: Any, spoken: Spoken, path: str, status: int, said: Any, ends: int, told: str
) -> None:
    spoken.answers[path] = [(status, said)]
    ran = set_up()
    assert ran.status == ends, ran.err
    assert told in ran.err
    assert "Hint: " in ran.err
    assert spoken.written == []
    assert ("POST", "auth/token/revoke-self") not in spoken.heard


def test_a_refusal_in_the_middle_leaves_the_token_good(set_up: Any, spoken: Spoken) -> None:
    spoken.answers["auth/jwt-nonprod/config"] = [(404, {"errors": []}), (403, {"errors": ["permission denied"]})]
    ran = set_up()
    assert ran.status == 3
    assert "does not take auth/jwt-nonprod/config: permission denied.\n  The token was not revoked.\nHint: " in ran.err
    assert "made       sys/policies/acl/config-writer\n" in ran.out
    assert ("POST", "auth/token/revoke-self") not in spoken.heard


def test_it_says_what_it_does_and_revokes_the_token(set_up: Any, spoken: Spoken) -> None:
    ran = set_up()
    assert ran.status == 0, ran.err
    lines = ran.out.splitlines()
    assert "max_request_json_strings = 5000" in lines.pop(1)
    assert lines[:6] == [
        "version    1.99.0",
        "made       sys/mounts/nonprod",
        "made       sys/mounts/production",
        "made       sys/mounts/register",
        "made       sys/mounts/register-signer",
        "made       sys/auth/jwt-server",
    ]
    assert lines[-2:] == ["revoked    the token", "18 paths written."]
    assert spoken.heard[-1] == ("POST", "auth/token/revoke-self")
    assert f'vault_url = "{spoken.url}"' in ran.err


def test_a_token_is_kept_on_request(set_up: Any, spoken: Spoken) -> None:
    ran = set_up("--keep-token")
    assert ran.status == 0
    assert "revoked" not in ran.out
    assert "The token was not revoked" in ran.err
    assert ("POST", "auth/token/revoke-self") not in spoken.heard
    asked = json.loads(spoken.bodies["sys/capabilities-self"])["paths"]
    assert "auth/token/revoke-self" not in asked


def test_a_token_that_cannot_be_revoked_is_told(set_up: Any, spoken: Spoken) -> None:
    spoken.answers["auth/token/revoke-self"] = [(400, {"errors": ["batch tokens cannot be revoked"]})]
    ran = set_up()
    assert ran.status == 4
    assert "did not revoke the token: batch tokens cannot be revoked." in ran.err
    assert "Everything is set up." in ran.err


def test_a_mount_that_makes_itself_ready_is_waited_for(set_up: Any, spoken: Spoken) -> None:
    """HashiCorp's Vault refuses a new KV v2 mount's first requests."""
    busy = "Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period."
    spoken.answers["nonprod/config"] = [
        (400, {"errors": [busy]}),
        (400, {"errors": [busy]}),
        (200, {"data": {"max_versions": 0}}),
        (204, None),
    ]
    spoken.answers["production/config"] = [
        (200, {"data": {"max_versions": 0}}),
        (400, {"errors": [busy]}),
        (204, None),
    ]
    ran = set_up()
    assert ran.status == 0, ran.err
    assert spoken.heard.count(("GET", "nonprod/config")) == 3
    assert spoken.written.count("nonprod/config") == 1
    assert spoken.written.count("production/config") == 2


def test_a_redirect_does_not_get_the_token(set_up: Any, spoken: Spoken) -> None:
    spoken.answers["sys/mounts"] = [(307, None)]
    assert "Name that address, if you trust it: http://127.0.0.1:" in set_up().err
    assert not [path for _, path in spoken.heard if "elsewhere" in path]


@pytest.mark.parametrize(
    ("words", "variable", "piped", "told"),
    [
        (("--token", TOKEN), "", "", "does not belong on a command line"),
        ((), "", f"{TOKEN}\n", "The token is missing"),
        (("--token", "-"), TOKEN, "", "The token is missing"),
        (("--token", "-"), "", f"{TOKEN} {TOKEN}\n", "That is not a token"),
        ((), f"{TOKEN}\n{TOKEN}", "", "That is not a token"),
        ((), f"{TOKEN}ü", "", "That is not a token"),
    ],
)
def test_tokens_that_make_no_sense(
    cli: CommandLine, spoken: Spoken, monkeypatch: pytest.MonkeyPatch, words: Any, variable: str, piped: str, told: str
) -> None:
    if variable:
        monkeypatch.setenv("VAULT_TOKEN", variable)
    typed(monkeypatch, piped)
    ran = cli("vault", "setup", "--address", spoken.url, *words)
    assert ran.status == 2
    assert told in ran.err
    assert TOKEN not in ran.out + ran.err
    assert spoken.heard == []


def test_a_token_comes_from_standard_input(cli: CommandLine, spoken: Spoken, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, f"{TOKEN}\n")
    assert cli("vault", "setup", "--address", spoken.url, "--token", "-").status == 0


@pytest.mark.parametrize(
    "address",
    ["vault.example.com", "ftp://x", "http://", "http://user:secret@x", "http://x:0", "http://x?a=b", "http://x y"],
)
def test_addresses_that_make_no_sense(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    ran = cli("vault", "setup", "--address", address)
    assert (ran.status, "That is not the address of a Vault" in ran.err) == (2, True)
    assert "secret" not in ran.err


def test_an_address_comes_from_the_settings(cli: CommandLine, spoken: Spoken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    assert "The address of the Vault is missing" in cli("vault", "setup").err
    monkeypatch.setenv("BRANCHLINE_VAULT_URL", spoken.url)
    ran = cli("vault", "setup")
    assert (ran.status, ran.err) == (0, "")


def test_nobody_answers(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    monkeypatch.setenv("BRANCHLINE_DEBUG", "1")
    ran = cli("vault", "setup", "--address", "http://127.0.0.1:1")
    assert ran.status == 4
    assert "The Vault at http://127.0.0.1:1 cannot be reached." in ran.err
    assert TOKEN not in ran.out + ran.err
