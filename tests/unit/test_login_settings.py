"""With whom people log in, by the settings; and what members are called whom a provider calls oddly."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from branchline.bootstrap.logins import login_providers, public_url
from branchline.domain.audit import Kind
from branchline.domain.config import Secret
from branchline.domain.errors import BadInput, NotFound, Refused
from branchline.layout import Layout, Ports
from branchline.operations.failures import FailedLogins
from branchline.operations.gate import Gate
from branchline.operations.logins import Logins, Returned
from branchline.operations.sessions import Sessions
from branchline.operations.tokens import Tokens
from branchline.ports.logins import Attempt, Person
from branchline.settings import Settings
from branchline.stack.key_files import inventory
from tests.fakes.providers import CLIENT, SECRET, FakeOidc
from tests.fakes.store import MemoryStore


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "keys").mkdir()
    return Layout(tmp_path, "t", IPv4Network("10.9.0.0/16"), Ports(*range(8701, 8709)))


def settings(layout: Layout, **more: Any) -> Settings:
    return Settings(home=layout.home, **more)


@pytest.mark.parametrize(
    ("more", "url"),
    [
        ({}, "http://127.0.0.1:8701"),
        ({"server_listen": "0.0.0.0:8800"}, "http://127.0.0.1:8800"),
        ({"server_listen": "branchline.lan:80"}, "http://branchline.lan:80"),
        ({"public_url": "https://branchline.example.com/"}, "https://branchline.example.com"),
    ],
)
def test_where_browsers_reach_the_server(layout: Layout, more: dict[str, str], url: str) -> None:
    assert public_url(settings(layout, **more), layout) == url


def test_without_settings_there_are_tokens_alone(layout: Layout) -> None:
    assert login_providers(settings(layout), layout) == []


def test_both_kinds_at_once(layout: Layout) -> None:
    both = settings(layout, oidc_issuer="https://id.example.com", oidc_client_id="b", github_client_id="g")
    assert [one.title for one in login_providers(both, layout)] == ["id.example.com", "GitHub"]


@pytest.mark.parametrize(
    "more",
    [
        {"oidc_issuer": "https://id.example.com"},
        {"oidc_issuer": "http://id.example.com", "oidc_client_id": "b"},
        {"oidc_issuer": "id.example.com", "oidc_client_id": "b"},
        {"github_url": "http://git.example.com", "github_client_id": "g"},
    ],
)
def test_settings_that_make_no_sense(layout: Layout, more: dict[str, str]) -> None:
    with pytest.raises(BadInput) as caught:
        login_providers(settings(layout, **more), layout)
    assert (caught.value.code, bool(caught.value.hint)) == ("bad_settings", True)


@pytest.mark.parametrize("place", ["setting", "file"])
def test_the_clients_secret(layout: Layout, place: str) -> None:
    more = {"oidc_client_secret": SecretStr(SECRET)} if place == "setting" else {}
    if place == "file":
        (layout.home / "keys" / "oidc-client.secret").write_text(f"{SECRET}\n")
    with FakeOidc() as there:
        found = login_providers(settings(layout, oidc_issuer=there.url, oidc_client_id=CLIENT, **more), layout)
        attempt = Attempt("s", "n", Secret("v" * 43), "http://x")
        assert found[0].identify(attempt, there.log_in(found[0].address(attempt))).subject == "ada-1"
        assert there.auth == "basic"
    assert SECRET not in repr(settings(layout, **more))


def test_a_secret_in_a_file_is_among_the_keys(layout: Layout) -> None:
    (layout.home / "keys" / "oidc-client.secret").write_text(SECRET)
    assert [one.purpose for one in inventory(layout.home / "keys")] == [
        "the platform's secret at the OpenID Connect provider that people log in with"
    ]


class Calling:
    """A provider that calls everybody so."""

    id = "oidc"
    title = "id.example.com"

    def __init__(self, name: str, subject: str = "subject-1") -> None:
        self.person = Person("https://id.example.com", subject, name)

    def address(self, attempt: Attempt) -> str:
        return attempt.state

    def identify(self, attempt: Attempt, code: str) -> Person:
        return self.person


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("ada", "ada"),
        ("platform", "platform-person"),
        ("Operator", "Operator-person"),
        ("corp/ada", "corp-ada"),
        ("..", "subject-1"),
        ("(nobody)", "(nobody)-person"),
        (" a\nda\x00 ", "ada"),
        ("", "subject-1"),
        ("\u202e", "subject-1"),
        ("x" * 300, "x" * 100),
    ],
)
def test_nobody_is_called_what_would_mislead(called: str, name: str) -> None:
    store = MemoryStore()
    sessions = Sessions(store, Gate(store), Tokens(store, Gate(store)))
    logins = Logins(store, sessions, FailedLogins(store), [Calling(called)], "http://localhost")
    begun = logins.begin("oidc", "/")
    entered = logins.finish(begun.keepsake, Returned("oidc", begun.address, "code", "", "192.0.2.1", "a" * 500))
    assert entered.name == name
    actor = sessions.authenticate(entered.session, "192.0.2.1")
    assert (actor.name, actor.proof, actor.source) == (name, "OIDC https://id.example.com", "192.0.2.1")
    assert [len(one.agent) for one in sessions.mine(actor)] == [200]


@pytest.mark.parametrize(
    ("provider", "groups"), [("oidc", ("acme", "ops")), ("github", ("github:acme", "github:github:acme", "github:ops"))]
)
def test_whoever_makes_a_group_of_that_name_elsewhere_gains_nothing(provider: str, groups: tuple[str, ...]) -> None:
    store = MemoryStore()
    sessions = Sessions(store, Gate(store), Tokens(store, Gate(store)))
    calling = Calling("ada")
    calling.id = provider
    calling.person = replace(calling.person, groups=("acme", "github:acme", "ops"))
    logins = Logins(store, sessions, FailedLogins(store), [calling], "http://localhost")
    begun = logins.begin(provider, "/")
    logins.finish(begun.keepsake, Returned(provider, begun.address, "code", "", "192.0.2.1", ""))
    assert [one.groups for one in store.tables.people.members.values()] == [groups]


@pytest.mark.parametrize(("provider", "let_in"), [("oidc", True), ("github", False)])
def test_only_those_in_a_group_that_is_named_are_let_in(provider: str, let_in: bool) -> None:
    store = MemoryStore()
    sessions = Sessions(store, Gate(store), Tokens(store, Gate(store)))
    calling = Calling("ada")
    calling.id = provider
    calling.person = replace(calling.person, groups=("acme", "dev"))
    logins = Logins(store, sessions, FailedLogins(store), [calling], "http://localhost", {"acme", "github:other"})
    begun = logins.begin(provider, "/")
    returned = Returned(provider, begun.address, "code", "", "192.0.2.1", "")
    if let_in:
        assert logins.finish(begun.keepsake, returned).name == "ada"
        return
    with pytest.raises(Refused) as refused:
        logins.finish(begun.keepsake, returned)
    assert refused.value.code == "not_in_group"
    assert store.tables.people.members == {}
    (line,) = [event for _, event in store.tables.events if event.kind is Kind.LOGIN_FAILED]
    assert line.detail["code"] == "not_in_group"


def test_an_unknown_provider() -> None:
    store = MemoryStore()
    sessions = Sessions(store, Gate(store), Tokens(store, Gate(store)))
    logins = Logins(store, sessions, FailedLogins(store), [], "http://localhost")
    with pytest.raises(NotFound):
        logins.begin("oidc", "/")
    assert logins.providers() == []
