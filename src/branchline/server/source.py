"""Where a request comes from: the peer, or whom a proxy that is trusted speaks for."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from branchline.domain.errors import BadInput

Network = IPv4Network | IPv6Network

UNKNOWN = "unknown"
"""Where the web server does not say: no request over a network comes so."""


def networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks, separated by commas. Raises BadInput (`bad_settings`)."""
    try:
        return tuple(ip_network(one.strip()) for one in text.split(",") if one.strip())
    except ValueError as error:
        raise BadInput(
            f"`trusted_proxies` is not right: {error}.",
            code="bad_settings",
            hint="Write addresses or networks, separated by commas: `10.0.0.5, 10.1.0.0/16`.",
        ) from None


def locate(scope: Scope, trusted: Sequence[Network]) -> None:
    """Note the address in the request's state, and whether it came by HTTPS in its scheme.

    `X-Forwarded-For` is read from the right, past every proxy that is trusted: what stands further left is anybody's
    word. The scheme decides over the cookie's flags alone, so a proxy on this machine may tell it without more trust.
    """
    headers = Headers(scope=scope)
    peer = (scope.get("client") or (UNKNOWN, 0))[0]
    source = _plain(peer)
    said = [part.strip() for part in ",".join(headers.getlist("x-forwarded-for")).split(",")]
    while said and _among(source, trusted):
        nearest = _plain(said.pop())
        if nearest == UNKNOWN:
            break
        source = nearest
    if _among(_plain(peer), [*trusted, *_LOOPBACK]) and headers.get("x-forwarded-proto", "").lower() == "https":
        scope["scheme"] = "https"
    scope.setdefault("state", {})["source"] = source


def source_of(request: Request) -> str:
    """The address that the request came from."""
    return str(request.state.source)


def group_of(source: str) -> str:
    """What is counted together: an address, and of IPv6 the network of 64 bits that one customer has at least."""
    try:
        address = ip_address(source)
    except ValueError:
        return source
    return str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else source


def site_of(source: str) -> str:
    """The network of 48 bits that a site may have of IPv6; empty where the source is none of its addresses."""
    try:
        address = ip_address(source)
    except ValueError:
        return ""
    return str(ip_network((address, 48), strict=False)) if isinstance(address, IPv6Address) else ""


_LOOPBACK = networks("127.0.0.0/8, ::1")


def _plain(text: str) -> str:
    """An address in its one spelling, without a port; UNKNOWN for what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return UNKNOWN
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _among(source: str, trusted: Sequence[Network]) -> bool:
    try:
        address = ip_address(source)
    except ValueError:
        return False
    return any(address in network for network in trusted)
