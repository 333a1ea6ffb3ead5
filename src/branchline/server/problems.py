"""The one shape that every error has, and the plain words for what is wrong with a request."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response

from branchline.domain.errors import BadInput, BranchlineError, Unreachable
from branchline.domain.printable import printable
from branchline.wire import Problem

MEDIA_TYPE = "application/problem+json"
API_DESCRIPTION = "/api/openapi.json"

log = structlog.get_logger(__name__)


class TooLarge(BadInput):
    """The body is larger than we read."""

    code = "body_too_large"
    status = 413


class AddressTooLong(BadInput):
    """Path and query are longer than we read."""

    code = "address_too_long"
    status = 414


class HeadTooLarge(BadInput):
    """The headers are more than we read."""

    code = "headers_too_large"
    status = 431


class TooSlow(BadInput):
    """The request did not come in the time that we wait."""

    code = "request_timeout"
    status = 408


class Malformed(BadInput):
    """The body cannot be read at all."""

    code = "malformed_body"
    status = 400


def problem(error: BranchlineError) -> Problem:
    """An error of ours as it goes out: what somebody named stands in it, but moves no cursor where it is read."""
    sentence, hint = ("\n".join(map(printable, text.split("\n"))) for text in (error.sentence, error.hint))
    return Problem(code=error.code, title=sentence, hint=hint, status=error.status)


def http_problem(status: int, path: str) -> Problem:
    """What the framework found: an unknown path, a method that a path does not know, and the like."""
    if status == 404:
        return Problem(
            code="unknown_path",
            title=f"There is nothing at {_shown(path)}.",
            hint=f"{API_DESCRIPTION} names every path of the API.",
            status=404,
        )
    if status == 405:
        return Problem(
            code="method_not_allowed",
            title=f"{_shown(path)} does not know this method.",
            hint=f"The header Allow of this answer and {API_DESCRIPTION} name those that it knows.",
            status=405,
        )
    if status == 400:
        return problem(unreadable_body())
    if status == 408:
        return problem(too_slow())
    if status == 413:
        return problem(too_large())
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "The request failed"
    return Problem(code="http_error", title=f"{phrase}.", status=status)


def unreadable_body() -> Malformed:
    """The body is not the JSON that was announced."""
    return Malformed("The body cannot be read as JSON.", hint="Send one JSON object, encoded as UTF-8.")


def too_large() -> TooLarge:
    """The body is beyond the limit."""
    return TooLarge(
        "The body is larger than 1 MiB.", hint="Send less at a time: config can be changed in several requests."
    )


def address_too_long() -> AddressTooLong:
    """Path and query are beyond the limit."""
    return AddressTooLong("The address is longer than 8 KiB.", hint=f"{API_DESCRIPTION} names what there is.")


def too_many_fields() -> BadInput:
    """The query has more fields than any path takes."""
    return BadInput("The query has more than 50 fields.", code="too_many_fields", hint=f"See {API_DESCRIPTION}.")


def head_too_large() -> HeadTooLarge:
    """The headers are beyond the limit."""
    return HeadTooLarge(
        "The headers are more than 32 KiB, or more than 100.", hint="Send fewer: are there old cookies?"
    )


def too_slow() -> TooSlow:
    """The request did not arrive in time."""
    return TooSlow("The request did not arrive in time.", hint="Send it again, at once and whole.")


def not_http() -> Malformed:
    """What came is no request."""
    return Malformed("That is no HTTP/1.1 request.", code="malformed_request", hint="Send plain HTTP, not TLS, here.")


def crowded() -> Unreachable:
    """Too many connections are open."""
    return Unreachable(
        "The server has as many connections as it can carry.", code="crowded", hint="Try again in a moment."
    )


def stopping() -> Unreachable:
    """The server ends before the request does."""
    return Unreachable(
        "The server stops; whether this was done is not known.",
        code="stopping",
        hint="Look at what is there in a moment, and ask again if need be.",
    )


def invalid(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Plain words for what a request lacks. What was sent is never repeated: it may be a secret."""
    if any(error["type"] == "json_invalid" for error in errors):
        return problem(unreadable_body())
    complaints = list(dict.fromkeys(_complaint(error) for error in errors))
    return Problem(
        code="bad_request",
        title=f"The request is not right: {complaints[0]}.",
        detail="; ".join(complaints) if len(complaints) > 1 else "",
        hint=f"{API_DESCRIPTION} describes what this path takes.",
        status=422,
    )


def incident(error: Exception) -> Problem:
    """Write an exception that nobody expected to the log, and say no more of it than where to find it there."""
    number = secrets.token_hex(6)
    log.error("incident", incident=number, exc_info=error)
    return Problem(
        code="internal",
        title="The server failed; this is a fault of the platform.",
        detail=f"Incident {number}.",
        hint="Try again. If it stays, tell whoever runs the platform: the server's log explains the incident.",
        status=500,
        incident=number,
    )


def answer(found: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as the API answers it."""
    extra = dict(headers or {})
    if found.status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    if found.status == 503:
        extra.setdefault("Retry-After", "2")
    unused = None if found.incident else {"incident"}
    return Response(found.model_dump_json(exclude=unused), found.status, extra, MEDIA_TYPE)


def wants_page(request: Request) -> bool:
    """Whether a person's browser asks, for something outside of the API."""
    return not request.scope["path"].startswith("/api") and "text/html" in request.headers.get("accept", "")


def _complaint(error: Mapping[str, Any]) -> str:
    """One thing that is wrong, without the value."""
    kind = str(error["type"])
    field = _field(error["loc"])
    context = error.get("ctx", {})
    words = {
        "missing": "is missing",
        "extra_forbidden": "is not known here",
        "string_type": "must be text",
        "string_too_short": f"must have at least {context.get('min_length')} characters",
        "string_too_long": f"must have at most {context.get('max_length')} characters",
        "string_pattern_mismatch": "does not have the form that it must have",
        "string_unicode": "is not valid Unicode",
        "enum": f"must be one of {context.get('expected')}",
        "int_type": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_from_float": "must be a whole number",
        "int_parsing_size": "is too large a number",
        "greater_than_equal": f"must be at least {context.get('ge')}",
        "less_than_equal": f"must be at most {context.get('le')}",
        "bool_type": "must be true or false",
        "dict_type": "must be an object",
        "model_attributes_type": "must be a JSON object, sent as application/json",
        "too_short": f"must have at least {context.get('min_length')} entries",
        "too_long": f"must have at most {context.get('max_length')} entries",
    }
    return f"{field} {words.get(kind, 'is not valid')}"


def _field(location: Sequence[int | str]) -> str:
    """Name a part of the request: `ref`, `changes.KEY`, the path's `id`; what cannot be a name is not shown."""
    where, *parts = location
    names = [str(part) if str(part).replace("_", "").isalnum() and len(str(part)) <= 128 else "…" for part in parts]
    if not names:
        return "the body"
    return f"`{'.'.join(names)}`" + {"path": " in the path", "query": " in the query"}.get(str(where), "")


def _shown(path: str) -> str:
    """A path as it may stand in a sentence."""
    printable = "".join(sign if sign.isprintable() else "�" for sign in path)
    return printable if len(printable) <= 100 else printable[:100] + "…"
