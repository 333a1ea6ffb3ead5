"""`branchline vault setup` on a Vault that somebody else runs, and the platform's config in it afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from branchline.adapters.vault import VaultConfigReader, VaultConfigWriter
from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Tier, tier_of, usually_inherits
from branchline.domain.errors import BadInput, PlatformBroke, Refused
from branchline.domain.layers import Layer
from branchline.endpoints import Endpoints
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack.openbao_rules import CONFIG_WRITER_ROLE
from tests.fakes.command_line import CommandLine, Ran
from tests.openbao import Caller, RealConfigStore, claims
from tests.plain_vault import PlainVault

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def somebodys(home_layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainVault]:
    vault = PlainVault(home_layout, tmp_path_factory.mktemp("vault"))
    try:
        vault.start()
        yield vault
    finally:
        vault.stop()


@pytest.fixture
def vault(somebodys: PlainVault) -> PlainVault:
    """The same server, as good as new."""
    somebodys.renew()
    return somebodys


@pytest.fixture
def cli(
    home_layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> CommandLine:
    line = CommandLine(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("BRANCHLINE_HOME", str(home_layout.home))
    return line


@pytest.fixture
def set_up(cli: CommandLine, vault: PlainVault, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(token: str | None = None, *words: str) -> Ran:
        given = token or vault.token()
        monkeypatch.setenv("VAULT_TOKEN", given)
        ran = cli("vault", "setup", "--address", vault.url, *words)
        assert given not in ran.out + ran.err
        return ran

    return run


def good(vault: PlainVault, token: str) -> bool:
    return Caller(vault.url, token).ask("GET", "auth/token/lookup-self").status_code == 200


def signed(key: Secret, **others: Any) -> str:
    return jwt.encode({"alg": "ES256"}, claims(**others), ECKey.import_key(key.reveal()))


def place(name: str) -> Environment:
    return Environment(id=1, project="shop", name=name, tier=tier_of(name), slot=1, inherits=usually_inherits(name))


def test_config_is_kept_there(
    set_up: Any, vault: PlainVault, home_layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set_up().status == 0
    url = Endpoints(Settings(home=home_layout.home, vault_url=vault.url), home_layout).vault
    writer = VaultConfigWriter(url, partial(home_layout.key, "server.pem"))
    readers = {tier: VaultConfigReader(url, tier, partial(home_layout.key, f"{tier}.pem")) for tier in Tier}

    for name, key in (("_common", "A"), ("develop", "B"), ("login", "C"), ("production", "P")):
        assert writer.write(Layer("shop", name), {key: Secret(f"{name}'s")}, 0) == 1
    assert writer.write(Layer("shop", "production"), {"Q": Secret("another")}, 1) == 2
    assert writer.keys(Layer("shop", "production")).shown == {"P", "Q"}
    assert [one.version for one in writer.versions(Layer("shop", "production"))] == [2, 1]
    assert writer.read(Layer("shop", "login")).version == 1

    def shown(name: str, **pinned: Any) -> dict[str, str]:
        config = readers[tier_of(name)].read(place(name), **pinned)
        return {key: value.reveal() for key, value in config.items()}

    assert shown("login") == {"A": "_common's", "B": "develop's", "C": "login's"}
    assert shown("production") == {"P": "production's", "Q": "another"}
    assert shown("production", versions={"shop/env/production": 1}) == {"P": "production's"}

    with pytest.raises(Refused):
        writer.read(Layer("shop", "production"))
    with pytest.raises(PlatformBroke) as caught:
        readers[Tier.NONPROD].read(place("production"))
    assert caught.value.code == "config_refused"


def test_nobody_gets_further_than_in_our_own(set_up: Any, vault: PlainVault, home_layout: Layout) -> None:
    assert set_up().status == 0
    store = RealConfigStore(vault, home_layout)
    for name in ("develop", "login", "production"):
        store.put("shop", name, {"A": name})

    def caller(key: str, role: str, **others: Any) -> Caller:
        token = signed(home_layout.key(f"{key}.pem"), **others)
        answer = Caller(vault.url).log_in(f"jwt-{key}", role, token)
        assert answer.status_code == 200, answer.text
        return Caller(vault.url, answer.json()["auth"]["client_token"])

    identity = {"tier": "nonprod", "project": "shop", "env": "login", "base": "_none", "parent": "login"}
    login = caller("nonprod", "runtime", sub="nonprod:shop:login", aud="branchline-runtime", **identity)
    assert login.ask("GET", "nonprod/data/shop/env/login").status_code == 200
    for path in ("production/data/shop/env/production", "nonprod/data/shop/env/develop", "sys/mounts"):
        assert login.ask("GET", path).status_code == 403, path
    server = caller("server", "config-writer", sub="server", aud="branchline-server")
    assert server.ask("GET", "nonprod/data/shop/env/login").status_code == 200
    assert server.ask("GET", "production/data/shop/env/production").status_code == 403
    assert server.ask("POST", "sys/policies/acl/runtime-production", policy="").status_code == 403
    forged = signed(home_layout.key("nonprod.pem"), sub="x", aud="branchline-runtime", tier="production")
    assert Caller(vault.url).log_in("jwt-production", "runtime", forged).status_code == 400
    assert "jwt-operator/" not in vault.root().ask("GET", "sys/auth").json()["data"]
    assert vault.root().ask("GET", "nonprod/config").json()["data"]["max_versions"] == 500


def test_a_second_run_changes_nothing_and_each_token_is_good_for_one(set_up: Any, vault: PlainVault) -> None:
    first, second, third = vault.token(), vault.token(), vault.token()
    ran = set_up(first)
    assert (ran.status, ran.out.count("\nmade "), ran.out.count("\nchanged ")) == (0, 17, 3), ran.err
    assert ran.out.endswith("revoked    the token\n20 paths written.\n")
    assert not good(vault, first)

    before = vault.state()
    ran = set_up(second)
    assert (ran.status, ran.out.count("\nunchanged ")) == (0, 20), ran.out
    assert ran.out.endswith("revoked    the token\nNothing had to be changed.\n")
    assert vault.state() == before
    assert not good(vault, second)

    assert set_up(third, "--keep-token").status == 0
    assert good(vault, third)
    ran = set_up(first)
    assert (ran.status, "refuses this token" in ran.err) == (3, True)


def test_what_was_changed_there_is_put_right(set_up: Any, vault: PlainVault) -> None:
    assert set_up().status == 0
    root = vault.root()
    assert root.ask("POST", "nonprod/config", max_versions=7).status_code == 204
    assert root.ask("DELETE", "sys/policies/acl/runtime-production").status_code == 204
    short = {**CONFIG_WRITER_ROLE, "token_ttl": "5m"}
    assert root.ask("POST", "auth/jwt-server/role/config-writer", **short).status_code == 204
    expected = ("unchanged", "version", "note", "revoked")
    lines = [line for line in set_up().out.splitlines() if not line.startswith(expected)]
    assert [line.split(maxsplit=1) for line in lines] == [
        ["changed", "auth/jwt-server/role/config-writer"],
        ["changed", "nonprod/config"],
        ["made", "sys/policies/acl/runtime-production"],
        ["3", "paths written."],
    ]


def test_the_policy_that_the_dry_run_shows_is_enough(cli: CommandLine, set_up: Any, vault: PlainVault) -> None:
    told = cli("vault", "setup", "--dry-run").out
    policy = "\n".join(re.findall(r"^#   (path .*)$", told, re.MULTILINE))
    token = vault.token(policy)
    assert set_up(token).status == 0
    assert not good(vault, token)
    assert set_up(vault.token(policy)).out.endswith("Nothing had to be changed.\n")


def test_a_token_that_may_too_little_changes_nothing(set_up: Any, vault: PlainVault) -> None:
    token = vault.token('path "sys/mounts" { capabilities = ["read"] }\npath "sys/auth" { capabilities = ["read"] }')
    before = vault.state()
    ran = set_up(token)
    assert ran.status == 3
    mounts = ", ".join(f"sys/mounts/{name}" for name in ("nonprod", "production", "register", "register-signer"))
    assert f"The token lacks rights for {mounts}, sys/auth/jwt-server" in ran.err
    assert "The token was not revoked.\nHint: " in ran.err
    assert vault.state() == before
    assert good(vault, token)


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("sys/mounts/nonprod", {"type": "kv", "options": {"version": "1"}}, "nonprod/ is kv version 1, not 2"),
        ("sys/mounts/production", {"type": "transit"}, "production/ is of type transit, not kv"),
        ("sys/auth/jwt-server", {"type": "userpass"}, "jwt-server/ is of type userpass, not jwt"),
        ("sys/mounts/nonprod/team", {"type": "kv"}, "nonprod/team/ lies within nonprod/"),
    ],
)
def test_a_mount_in_the_way_is_left_alone(
    set_up: Any, vault: PlainVault, path: str, body: dict[str, Any], told: str
) -> None:
    assert vault.root().ask("POST", path, **body).status_code == 204
    before, token = vault.state(), vault.token()
    ran = set_up(token)
    assert ran.status == 2
    assert told in ran.err
    assert vault.state() == before
    assert good(vault, token)


def test_a_policy_of_somebody_elses_is_left_alone(set_up: Any, vault: PlainVault) -> None:
    policy = 'path "x" { capabilities = ["read"] }'
    assert vault.root().ask("POST", "sys/policies/acl/config-writer", policy=policy).status_code == 204
    before = vault.state()
    ran = set_up()
    assert (ran.status, "config-writer" in ran.err) == (2, True)
    assert vault.state() == before


@pytest.mark.parametrize("name", ["develop", "production"])
def test_many_keys_need_a_setting_of_which_the_setup_tells(
    set_up: Any, vault: PlainVault, home_layout: Layout, name: str
) -> None:
    (told,) = [line for line in set_up().out.splitlines() if line.startswith("note ")]
    assert "max_request_json_strings = 5000" in told
    changes = {f"KEY_{number}": Secret(f"value {number}") for number in range(500)}
    writer, roomy = (
        VaultConfigWriter(url, partial(home_layout.key, "server.pem")) for url in (vault.url, vault.roomy_url)
    )
    with pytest.raises(BadInput) as caught:
        writer.write(Layer("shop", name), changes, 0)
    assert caught.value.code == "config_too_large"
    assert "`max_request_json_strings`" in caught.value.hint
    assert writer.keys(Layer("shop", name)).version == 0
    assert roomy.write(Layer("shop", name), changes, 0) == 1
    assert len(writer.keys(Layer("shop", name)).shown) == 500


def test_a_sealed_vault_says_so(set_up: Any, vault: PlainVault) -> None:
    token = vault.token()
    assert vault.root().ask("POST", "sys/seal").status_code == 204
    try:
        ran = set_up(token)
        assert (ran.status, "is sealed" in ran.err) == (4, True)
    finally:
        vault.unseal()


def test_a_certificate_of_ones_own_counts_by_the_same_setting_everywhere(
    cli: CommandLine, vault: PlainVault, home_layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", vault.token())
    ran = cli("vault", "setup", "--address", vault.tls_url)
    assert (ran.status, "SSL_CERT_FILE" in ran.err) == (4, True)
    monkeypatch.setenv("SSL_CERT_FILE", str(vault.certificate))
    assert cli("vault", "setup", "--address", vault.tls_url).status == 0
    writer = VaultConfigWriter(vault.tls_url, partial(home_layout.key, "server.pem"))
    assert writer.write(Layer("shop", "develop"), {"A": Secret("1")}, 0) == 1
