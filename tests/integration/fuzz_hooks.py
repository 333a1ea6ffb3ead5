"""What schemathesis loads: an address of its own for each request, and streams that come to an end."""

from __future__ import annotations

import itertools
import os
from ipaddress import IPv4Address
from typing import Any

import schemathesis

_numbers = itertools.count(1)


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: schemathesis.Case, _kwargs: dict[str, Any]) -> None:
    """The server trusts this machine's word on where a request comes from."""
    case.headers["X-Forwarded-For"] = str(IPv4Address("198.18.0.0") + next(_numbers))
    if case.operation.path.endswith("/events") and _is_number_of_some(case.path_parameters.get("id")):
        # of another one, which waits for a runner that never comes, the stream would go on for ever
        case.path_parameters["id"] = int(os.environ["ENDED_DEPLOYMENT"])


def _is_number_of_some(asked: object) -> bool:
    return str(asked).isdecimal() and 0 < int(str(asked)) < 1_000_000
