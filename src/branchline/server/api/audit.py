"""The register."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BeforeValidator

from branchline.domain.audit import Wanted
from branchline.server.api import BIGGEST_ID, Before, ProjectFilter, router
from branchline.server.auth import CurrentActor, Operations
from branchline.wire_audit import AuditLine, RegisterKey, VerificationStep

LINES = "application/x-ndjson"


def _no_number(value: object) -> object:
    """A number of seconds would be taken for a time as well; nobody who writes one here means that."""
    if isinstance(value, str) and value.strip().lstrip("+-").replace(".", "", 1).isdigit():
        raise ValueError("not a time in ISO 8601")
    return value


Moment = Annotated[datetime, BeforeValidator(_no_number)]

api = router("/audit", "audit")


@api.get(
    "",
    operation_id="audit.list",
    summary="Who did what, newest first",
    description="`Link` leads to what follows; a list may be short, or empty, and yet have one.",
)
def lines(
    actor: CurrentActor,
    platform: Operations,
    request: Request,
    response: Response,
    project: ProjectFilter = None,
    environment: Annotated[str | None, Query(max_length=1000, description="Only environments of this name.")] = None,
    by: Annotated[str | None, Query(alias="actor", max_length=1000, description="Only what this actor did.")] = None,
    kind: Annotated[
        str | None, Query(max_length=1000, description="Only this kind, like `deployment.finished`.")
    ] = None,
    since: Annotated[Moment | None, Query(description="Only from this time on; UTC where no zone is named.")] = None,
    until: Annotated[Moment | None, Query(description="Only before this time.")] = None,
    text: Annotated[
        str | None, Query(max_length=200, description="Only lines that hold this, whatever its case.")
    ] = None,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[AuditLine]:
    wanted = Wanted(project, environment, by, kind, _with_zone(since), _with_zone(until), text)
    page = platform.audit.list(actor, wanted, before, limit)
    if page.next is not None:
        following = request.url.include_query_params(before=page.next)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return list(page.items)


@api.get(
    "/verification",
    operation_id="audit.verify",
    summary="Check every row and seal of the register",
    description="A step for each so many rows, one a line; the last one has what was found.",
    response_class=StreamingResponse,
    responses={200: {"model": VerificationStep, "content": {LINES: {}}}},
)
def verification(actor: CurrentActor, platform: Operations) -> StreamingResponse:
    return _as_lines(step.model_dump_json(exclude_none=True) + "\n" for step in platform.audit.verify(actor))


@api.get(
    "/export",
    operation_id="audit.export",
    summary="The whole register as JSON lines, to be checked by whoever has the public key",
    response_class=StreamingResponse,
    responses={200: {"content": {LINES: {}}}},
)
def export(
    actor: CurrentActor,
    platform: Operations,
    after: Annotated[int, Query(ge=0, le=BIGGEST_ID, description="Only rows after this one.")] = 0,
) -> StreamingResponse:
    return _as_lines(platform.audit.export(actor, after))


@api.get("/keys", operation_id="audit.keys", summary="The public keys that the register is sealed with")
def keys(actor: CurrentActor, platform: Operations) -> list[RegisterKey]:
    return list(platform.audit.keys(actor))


def _with_zone(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def _as_lines(pieces: Iterable[str]) -> StreamingResponse:
    """An answer in pieces. The first is made before it begins, so that errors are still told."""
    rest: Iterator[str] = iter(pieces)
    first = next(rest, "")
    return StreamingResponse(chain([first], rest), media_type=LINES, headers={"X-Accel-Buffering": "no"})
