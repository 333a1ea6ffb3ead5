"""Where a request comes from: whose word counts."""

from __future__ import annotations

from typing import Any

import pytest

from branchline.domain.errors import BadInput
from branchline.server.source import group_of, locate, networks


def located(peer: str | None, trusted: str = "", **headers: str | list[str]) -> tuple[str, str]:
    said = []
    for name, values in headers.items():
        for value in [values] if isinstance(values, str) else values:
            said.append((name.replace("_", "-").encode(), value.encode()))
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": "http",
        "headers": said,
        "client": (peer, 1234) if peer else None,
    }
    locate(scope, networks(trusted))
    return scope["state"]["source"], scope["scheme"]


@pytest.mark.parametrize(
    ("peer", "trusted", "said", "source"),
    [
        ("192.0.2.1", "", "10.0.0.1", "192.0.2.1"),
        ("127.0.0.1", "", "10.0.0.1", "127.0.0.1"),
        ("192.0.2.1", "192.0.2.0/24", "203.0.113.9", "203.0.113.9"),
        ("192.0.2.1", "192.0.2.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("192.0.2.1", "192.0.2.0/24", "1.1.1.1, 203.0.113.9, 192.0.2.7", "203.0.113.9"),
        ("192.0.2.1", "192.0.2.0/24", "192.0.2.8, 192.0.2.7", "192.0.2.8"),
        ("192.0.2.1", "192.0.2.0/24", "", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.0/24", "not an address", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.0/24", "evil, 192.0.2.7", "192.0.2.7"),
        ("192.0.2.1", "192.0.2.0/24", "203.0.113.9:4711", "203.0.113.9"),
        ("192.0.2.1", "192.0.2.0/24", "[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::5", "2001:db8::/32", "2001:0DB8:1:0::1, 2001:db8::7", "2001:db8:1::1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "203.0.113.9", "203.0.113.9"),
    ],
)
def test_the_source_of_a_request(peer: str, trusted: str, said: str, source: str) -> None:
    assert located(peer, trusted, x_forwarded_for=said)[0] == source


def test_several_headers_are_one() -> None:
    assert located("192.0.2.1", "192.0.2.1", x_forwarded_for=["1.1.1.1", "203.0.113.9"])[0] == "203.0.113.9"


def test_a_peer_that_nobody_knows() -> None:
    assert located(None, "0.0.0.0/0", x_forwarded_for="203.0.113.9") == ("unknown", "http")


@pytest.mark.parametrize(
    ("peer", "trusted", "scheme"),
    [("127.0.0.1", "", "https"), ("::1", "", "https"), ("192.0.2.1", "", "http"), ("192.0.2.1", "192.0.2.1", "https")],
)
def test_who_may_say_that_it_came_by_https(peer: str, trusted: str, scheme: str) -> None:
    assert located(peer, trusted, x_forwarded_proto="https")[1] == scheme


def test_what_is_counted_together() -> None:
    assert group_of("192.0.2.1") == "192.0.2.1"
    assert group_of("2001:db8:1:2:3::4") == group_of("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert group_of("unknown") == "unknown"


def test_a_setting_that_is_no_network() -> None:
    assert networks("") == ()
    with pytest.raises(BadInput) as caught:
        networks("10.0.0.1, proxy.example.com")
    assert caught.value.code == "bad_settings"
