"""OpenBao as we set it up: who gets in, and what each identity is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from branchline.adapters.identity import Identity, Signer
from branchline.adapters.vault import VaultConfigReader, VaultConfigWriter
from branchline.domain.config import Secret
from branchline.domain.environment import Environment, Inherits, Tier, tier_of, usually_inherits
from branchline.domain.errors import PlatformBroke
from branchline.domain.layers import Layer, layers_of
from branchline.layout import Layout
from branchline.stack.openbao import OpenBao
from tests.openbao import Caller, RealConfigStore, claims, operator

pytestmark = pytest.mark.stack


@pytest.fixture
def store(openbao: OpenBao, home_layout: Layout) -> RealConfigStore:
    return RealConfigStore(openbao, home_layout)


@pytest.fixture
def project(store: RealConfigStore) -> str:
    """A project with a value in each of its environments, and another one called the same with an `x`."""
    name = f"w{uuid.uuid4().hex[:12]}"
    for owner in (name, name + "x"):
        for environment in ("_common", "develop", "staging", "alpha", "beta", "production"):
            store.put(owner, environment, {"OWNER": f"{owner}/{environment}"})
    return name


def place(project: str, name: str) -> Environment:
    return Environment(id=1, project=project, name=name, tier=tier_of(name), slot=1, inherits=usually_inherits(name))


def signer(store: RealConfigStore, name: str) -> Signer:
    return Signer(partial(store.layout.key, f"{name}.pem"))


def runner(store: RealConfigStore, environment: Environment) -> Caller:
    """Somebody with the token that a runner gets for this environment."""
    layers = layers_of(environment.project, environment.name, environment.inherits)
    token = signer(store, environment.tier).runtime(Identity.of(environment, layers))
    answer = Caller(store.url).log_in(f"jwt-{environment.tier}", "runtime", token)
    assert answer.status_code == 200, answer.text
    return Caller(store.url, answer.json()["auth"]["client_token"])


def server(store: RealConfigStore) -> Caller:
    answer = Caller(store.url).log_in("jwt-server", "config-writer", signer(store, "server").server())
    assert answer.status_code == 200, answer.text
    return Caller(store.url, answer.json()["auth"]["client_token"])


def signed(key: Secret, **others: Any) -> str:
    return jwt.encode({"alg": "ES256"}, claims(**others), ECKey.import_key(key.reveal()))


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        ("alpha", "GET", "nonprod/data/{project}/env/beta"),
        ("develop", "GET", "nonprod/data/{project}/env/alpha"),
        ("staging", "GET", "nonprod/data/{project}/env/develop"),
        ("staging", "GET", "nonprod/data/{project}/env/alpha"),
        ("alpha", "GET", "nonprod/data/{project}x/_common"),
        ("alpha", "POST", "nonprod/data/{project}/_common"),
        ("alpha", "POST", "sys/policies/acl/runtime-nonprod"),
        ("alpha", "GET", "sys/policies/acl/runtime-nonprod"),
        ("alpha", "POST", "auth/jwt-nonprod/role/runtime"),
        ("alpha", "POST", "auth/jwt-nonprod/config"),
        ("alpha", "POST", "identity/entity"),
        ("alpha", "GET", "nonprod/data/{project}x/env/alpha"),
        ("alpha", "GET", "nonprod/data/{project}x/env/develop"),
        ("alpha", "GET", "production/data/{project}/env/production"),
        ("alpha", "GET", "production/subkeys/{project}/env/production"),
        ("alpha", "GET", "nonprod/data/{project}/env/alpha/../beta"),
        ("alpha", "GET", "nonprod/metadata/{project}/env/alpha"),
        ("alpha", "LIST", "nonprod/metadata/{project}/env"),
        ("alpha", "POST", "nonprod/data/{project}/env/alpha"),
        ("alpha", "PATCH", "nonprod/data/{project}/env/alpha"),
        ("alpha", "DELETE", "nonprod/data/{project}/env/alpha"),
        ("alpha", "POST", "nonprod/data/{project}/env/develop"),
        ("alpha", "GET", "sys/mounts"),
        ("alpha", "POST", "auth/token/create"),
        ("production", "GET", "production/data/{project}x/env/production"),
        ("production", "GET", "production/data/{project}/_common"),
        ("production", "GET", "nonprod/data/{project}/_common"),
        ("production", "GET", "nonprod/data/{project}/env/develop"),
        ("production", "POST", "sys/policies/acl/runtime-production"),
        ("production", "POST", "auth/jwt-production/role/runtime"),
        ("production", "GET", "nonprod/data/{project}/env/alpha"),
        ("production", "POST", "production/data/{project}/env/production"),
        ("production", "DELETE", "production/data/{project}/env/production"),
    ],
)
def test_a_runner_is_refused(store: RealConfigStore, project: str, name: str, method: str, path: str) -> None:
    caller = runner(store, place(project, name))
    own = caller.ask("GET", f"{tier_of(name)}/data/{project}/env/{name}")
    assert own.json()["data"]["data"] == {"OWNER": f"{project}/{name}"}
    answer = caller.ask(method, path.format(project=project))
    assert answer.status_code == 403 or answer.is_redirect, answer.text


@pytest.mark.parametrize(
    "path",
    [
        "nonprod/data/{project}/_common",
        "nonprod/data/{project}/env/develop",
        "nonprod/data/{project}/env/production",
        "production/data/{project}/_common",
        "production/data/{project}/env/develop",
    ],
)
def test_whoever_holds_productions_key_inherits_nothing_whatever_the_token_says(
    store: RealConfigStore, project: str, path: str
) -> None:
    """Our own runner says `_none`; here somebody signs the claims of a branch with the key of production."""
    subject = f"production:{project}:production:_common:develop"
    token = runtime("production", sub=subject, project=project, env="production")
    answer = Caller(store.url).log_in("jwt-production", "runtime", signed(store.layout.key("production.pem"), **token))
    caller = Caller(store.url, answer.json()["auth"]["client_token"])
    assert caller.ask("GET", f"production/data/{project}/env/production").status_code == 200
    answer = caller.ask("GET", path.format(project=project))
    assert answer.status_code == 403, answer.text


@pytest.mark.parametrize(
    ("name", "inherits", "read"),
    [
        ("alpha", Inherits.NOTHING, {"env/alpha"}),
        ("alpha", Inherits.COMMON, {"env/alpha", "_common"}),
        ("alpha", Inherits.DEVELOP, {"env/alpha", "_common", "env/develop"}),
        ("develop", Inherits.NOTHING, {"env/develop"}),
        ("staging", Inherits.NOTHING, {"env/staging"}),
    ],
)
def test_a_runner_reads_what_the_environment_inherits_and_no_more(
    store: RealConfigStore, project: str, name: str, inherits: Inherits, read: set[str]
) -> None:
    caller = runner(store, replace(place(project, name), inherits=inherits))
    layers = ["_common", *(f"env/{one}" for one in ("alpha", "beta", "develop", "staging"))]
    answers = {layer: caller.ask("GET", f"nonprod/data/{project}/{layer}").status_code for layer in layers}
    assert answers == {layer: 200 if layer in read else 403 for layer in layers}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "production/data/{project}/env/production"),
        ("DELETE", "production/data/{project}/env/production"),
        ("POST", "production/undelete/{project}/env/production"),
        ("POST", "production/destroy/{project}/env/production"),
        ("DELETE", "production/metadata/{project}/env/production"),
        ("POST", "sys/policies/acl/runtime-nonprod"),
        ("POST", "auth/jwt-nonprod/role/runtime"),
        ("POST", "auth/jwt-production/config"),
        ("POST", "sys/auth/jwt-mine"),
        ("POST", "auth/token/create"),
        ("POST", "identity/entity"),
    ],
)
def test_the_server_is_refused(store: RealConfigStore, project: str, method: str, path: str) -> None:
    caller = server(store)
    assert caller.ask("GET", f"nonprod/data/{project}/env/alpha").status_code == 200
    answer = caller.ask(method, path.format(project=project), versions=[1])
    assert answer.status_code == 403, answer.text


def runtime(tier: str, /, **others: Any) -> dict[str, Any]:
    given = {"sub": f"{tier}:shop:alpha:_common:develop", "aud": "branchline-runtime", "tier": tier}
    given |= {"project": "shop", "env": "alpha", "base": "_common", "parent": "develop"}
    return {name: value for name, value in {**given, **others}.items() if value is not None}


@pytest.mark.parametrize(
    ("key", "mount", "role", "token"),
    [
        pytest.param(
            "nonprod",
            "nonprod",
            "runtime",
            runtime("nonprod", iat=timedelta(0, -62), exp=timedelta(0, -2)),
            id="expired",
        ),
        pytest.param("nonprod", "nonprod", "runtime", runtime("nonprod", nbf=timedelta(0, 900)), id="not yet"),
        pytest.param("nonprod", "nonprod", "runtime", runtime("nonprod", aud="branchline-server"), id="audience"),
        pytest.param("nonprod", "nonprod", "runtime", runtime("nonprod", aud=None), id="no audience"),
        pytest.param("nonprod", "nonprod", "runtime", runtime("production"), id="wrong tier"),
        pytest.param("nonprod", "nonprod", "runtime", runtime("nonprod", tier=None), id="no tier"),
        pytest.param("nonprod", "production", "runtime", runtime("production"), id="the other tier's mount"),
        pytest.param("server", "nonprod", "runtime", runtime("nonprod"), id="the server's key"),
        pytest.param("server", "production", "runtime", runtime("production"), id="the server's key, production"),
        pytest.param(
            "nonprod", "server", "config-writer", {"sub": "server", "aud": "branchline-server"}, id="as server"
        ),
        pytest.param("server", "server", "config-writer", {"sub": "me", "aud": "branchline-server"}, id="subject"),
        pytest.param("server", "server", "config-writer", runtime("nonprod", sub="server"), id="runtime's audience"),
        pytest.param(
            "server", "operator", "operator", {"sub": "operator", "aud": "branchline-operator"}, id="operator"
        ),
    ],
)
def test_a_login_is_refused(store: RealConfigStore, key: str, mount: str, role: str, token: dict[str, Any]) -> None:
    now = claims()["iat"]
    given = {name: now + int(one.total_seconds()) if isinstance(one, timedelta) else one for name, one in token.items()}
    answer = Caller(store.url).log_in(f"jwt-{mount}", role, signed(store.layout.key(f"{key}.pem"), **given))
    assert answer.status_code in {400, 403}, answer.text
    assert "client_token" not in answer.text


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_a_token_without_a_real_signature_is_refused(store: RealConfigStore, algorithm: str) -> None:
    public = (store.layout.home / "keys" / "nonprod.pub").read_bytes()
    parts = [{"alg": algorithm, "typ": "JWT"}, claims(**runtime("nonprod"))]
    text = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    mac = hmac.digest(public, text.encode(), hashlib.sha256) if algorithm == "HS256" else b""
    forged = f"{text}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    assert Caller(store.url).log_in("jwt-nonprod", "runtime", forged).status_code == 400


def test_a_token_that_was_seen_cannot_be_used_again_for_long(
    store: RealConfigStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has no memory for tokens it has seen: their short life is what ends a replay."""
    monkeypatch.setattr("branchline.adapters.identity.LIFETIME", 7)
    token = signer(store, "nonprod").runtime(Identity("nonprod", "shop", "alpha", "_common", "develop"))
    assert Caller(store.url).log_in("jwt-nonprod", "runtime", token).status_code == 200
    time.sleep(3)  # it was made five seconds older than it is, as far as clocks may differ
    replayed = Caller(store.url).log_in("jwt-nonprod", "runtime", token)
    assert replayed.status_code == 400
    assert "client_token" not in replayed.text


def test_a_changed_token_is_refused(store: RealConfigStore) -> None:
    alpha = Identity("nonprod", "shop", "alpha", "_common", "develop")
    head, _, signature = signer(store, "nonprod").runtime(alpha).split(".")
    other = base64.urlsafe_b64encode(json.dumps(claims(**runtime("nonprod", env="beta"))).encode()).decode().rstrip("=")
    assert Caller(store.url).log_in("jwt-nonprod", "runtime", f"{head}.{other}.{signature}").status_code == 400


@pytest.mark.parametrize(("name", "owner"), [("*", True), ("+", True), ("a/b", True), ("../*", True), ("alpha", False)])
def test_names_that_policies_could_misread_open_nothing(
    store: RealConfigStore, project: str, name: str, owner: bool
) -> None:
    token = runtime("nonprod", sub=f"nonprod:{project}:{name}", env=name, project=project if owner else None)
    answer = Caller(store.url).log_in("jwt-nonprod", "runtime", signed(store.layout.key("nonprod.pem"), **token))
    caller = Caller(store.url, answer.json()["auth"]["client_token"])
    for path in ("alpha", "beta", "alpha%2f..%2fbeta", "*", "+", ""):
        answer = caller.ask("GET", f"nonprod/data/{project}/env/{path}")
        assert answer.status_code in {400, 403}, answer.text


def test_logins_at_the_same_time_keep_their_own(store: RealConfigStore, project: str) -> None:
    """Facts that a login leaves behind are kept per subject: here each environment has one of its own."""
    places = [place(project, name) for name in ("alpha", "beta", "develop", "staging")] + [
        place(project + "x", "alpha")
    ]
    together = threading.Barrier(len(places))

    def read(environment: Environment) -> set[str]:
        seen = set()
        for _ in range(10):
            together.wait(timeout=30)
            seen.add(store.reader(Tier.NONPROD).read(environment)["OWNER"].reveal())
        return seen

    with ThreadPoolExecutor(len(places)) as threads:
        assert list(threads.map(read, places)) == [{f"{p.project}/{p.name}"} for p in places]


def test_one_reader_serves_many_environments_at_once(store: RealConfigStore, project: str) -> None:
    reader = store.reader(Tier.NONPROD)
    places = [place(project, name) for name in ("alpha", "beta", "develop")] * 10
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda environment: reader.read(environment)["OWNER"].reveal(), places))
    assert read == [f"{project}/{environment.name}" for environment in places]


@pytest.mark.parametrize("tier", list(Tier))
def test_a_login_that_ends_early_is_made_anew(store: RealConfigStore, project: str, tier: Tier) -> None:
    name = "production" if tier is Tier.PRODUCTION else "alpha"
    reader, writer = store.reader(tier), store.writer()
    for _ in range(2):
        assert reader.read(place(project, name))["OWNER"].reveal() == f"{project}/{name}"
        assert writer.keys(Layer(project, name)).version == 1
        for mount in (f"jwt-{tier}", "jwt-server"):
            answer = operator(store.url, store.layout).ask("POST", f"sys/leases/revoke-prefix/auth/{mount}/login")
            assert answer.status_code == 204, answer.text


def test_the_oldest_versions_are_pruned_and_said_to_be_gone(store: RealConfigStore, project: str) -> None:
    chief = operator(store.url, store.layout)
    keep = chief.ask("GET", "nonprod/config").json()["data"]["max_versions"]
    assert keep >= 500
    try:
        assert chief.ask("POST", "nonprod/config", max_versions=2).status_code == 204
        for number in range(3):
            store.put(project, "alpha", {"N": str(number)})
    finally:
        chief.ask("POST", "nonprod/config", max_versions=keep)
    reader = store.reader(Tier.NONPROD)
    with pytest.raises(PlatformBroke) as caught:
        reader.read(place(project, "alpha"), {f"{project}/env/alpha": 1})
    assert caught.value.code == "config_gone"
    assert reader.read(place(project, "alpha"), {f"{project}/env/alpha": 4})["N"].reveal() == "2"


def test_a_destroyed_version_is_gone(store: RealConfigStore, project: str) -> None:
    path = f"production/destroy/{project}/env/production"
    assert operator(store.url, store.layout).ask("POST", path, versions=[1]).status_code == 204
    for versions in ({f"{project}/env/production": 1}, None):
        with pytest.raises(PlatformBroke) as caught:
            store.reader(Tier.PRODUCTION).read(place(project, "production"), versions)
        assert caught.value.code == "config_gone"


def test_values_of_other_kinds_arrive_as_text(store: RealConfigStore, project: str) -> None:
    data = {"PORT": 8000, "DEBUG": False, "LIST": ["a"], "NOTHING": None, "TEXT": "x"}
    assert server(store).ask("POST", f"nonprod/data/{project}/env/alpha", data=data).status_code == 200
    config = store.reader(Tier.NONPROD).read(place(project, "alpha"))
    shown = {key: secret.reveal() for key, secret in config.items()}
    inherited = {"OWNER": f"{project}/develop"}
    assert shown == {"PORT": "8000", "DEBUG": "false", "LIST": '["a"]', "TEXT": "x", **inherited}


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: VaultConfigReader(store.url, Tier.NONPROD, partial(store.layout.key, "production.pem")).read(
            place("shop", "alpha")
        ),
        lambda store: VaultConfigWriter(store.url, partial(store.layout.key, "nonprod.pem")).keys(
            Layer("shop", "alpha")
        ),
    ],
)
def test_a_wrong_key_is_a_clear_error(store: RealConfigStore, ask: Callable[[RealConfigStore], object]) -> None:
    with pytest.raises(PlatformBroke) as caught:
        ask(store)
    assert caught.value.code == "config_refused"
    assert "token signature" in caught.value.hint


@pytest.mark.parametrize("key", ["../../etc/x", "/etc/x", "A=B", "", "A\0", "ä"])
def test_what_no_process_can_be_given_is_refused_though_it_was_written_past_us(
    store: RealConfigStore, project: str, key: str
) -> None:
    answer = server(store).ask("POST", f"nonprod/data/{project}/env/alpha", data={key: "hush-hush"})
    assert answer.status_code == 200, answer.text
    for read in (
        lambda: store.reader(Tier.NONPROD).read(place(project, "alpha")),
        lambda: store.writer().read(Layer(project, "alpha")),
    ):
        with pytest.raises(PlatformBroke) as caught:
            read()
        assert caught.value.code == "config_unusable"
        assert "hush" not in f"{caught.value} {caught.value.hint}"


def test_a_value_that_no_process_can_be_given_can_be_taken_out(store: RealConfigStore, project: str) -> None:
    layer, values = Layer(project, "alpha"), {"FINE": "1", "LONG": "x" * 200_000}
    answer = server(store).ask("POST", f"nonprod/data/{project}/env/alpha", data=values)
    assert answer.status_code == 200, answer.text
    writer = store.writer()
    found = writer.keys(layer)
    assert (found.shown, found.hidden) == (frozenset(values), frozenset())
    assert writer.write(layer, {"LONG": None}, found.version) == found.version + 1
    assert {key: str(one.reveal()) for key, one in writer.read(layer).entries.items()} == {"FINE": "1"}
