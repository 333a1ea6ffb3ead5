"""Addresses of servers that people type: how they are written, and whether they lead to this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from branchline.domain.errors import BadInput


def server_address(text: str, *, of: str, code: str, hint: str) -> str:
    """Return a server's URL without a slash at its end.

    Raises BadInput (`code`, with `hint`) where it is no address of `of`, or says more than an address: a user's name, a
    query. What was typed is not repeated then: there may be a password in it.
    """
    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or parts.query or parts.fragment or any(ord(letter) < 33 for letter in url):
        raise BadInput(f"That is not the address of {of}.", code=code, hint=hint)
    if "@" in parts.netloc:
        hint = "Leave out the user's name and password; a token is asked for separately."
        raise BadInput(f"That is not the address of {of}.", code=code, hint=hint)
    return url


def on_this_machine(url: str) -> bool:
    """Whether the address leads to this machine, so that nobody can listen in between."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
