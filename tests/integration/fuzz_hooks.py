"""What schemathesis loads: every request comes from an address of its own, so that none is one wrong token too many."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address
from typing import Any

import schemathesis

_numbers = itertools.count(1)


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: schemathesis.Case, _kwargs: dict[str, Any]) -> None:
    """The server trusts this machine's word on where a request comes from."""
    case.headers["X-Forwarded-For"] = str(IPv4Address("198.18.0.0") + next(_numbers))
