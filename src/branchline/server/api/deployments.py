"""Deployments: what became of them, their logs, and following one live."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Annotated

from fastapi import Header, Query, Request
from fastapi.responses import StreamingResponse

from branchline.domain.access import Actor
from branchline.server import events
from branchline.server.api import BIGGEST_ID, Before, DeploymentId, ProjectFilter, router
from branchline.server.auth import CurrentActor, Operations, bearer, platform_of, while_let_in
from branchline.server.platform import Platform
from branchline.server.source import source_of
from branchline.wire import DeploymentView, LogEvent, LogLine, Page

BLOCK = 64 * 1024
"""Characters of a log sent at a time."""

api = router("/deployments", "deployments")

After = Annotated[int, Query(ge=0, le=BIGGEST_ID, description="Only lines after this `seq`.")]


EVENT = {
    "type": "object",
    "description": "One of the stream's events.",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "description": "`seq` of a line."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/LogEvent"},
        },
    },
}


@api.get("", operation_id="deployments.list", summary="Deployments, newest first")
def deployments(
    actor: CurrentActor,
    platform: Operations,
    project: ProjectFilter = None,
    environment: Annotated[str | None, Query(max_length=1000, description="Only this environment.")] = None,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Page:
    return platform.deployments.list(actor, project, environment, before, limit)


@api.get("/{id}", operation_id="deployments.show", summary="One deployment with its whole story")
def show(actor: CurrentActor, platform: Operations, number: DeploymentId) -> DeploymentView:
    return platform.deployments.show(actor, number)


@api.post("/{id}/cancel", operation_id="deployments.cancel", summary="Ask a deployment to stop")
def cancel(actor: CurrentActor, platform: Operations, number: DeploymentId) -> DeploymentView:
    return platform.deployments.cancel(actor, number)


@api.get(
    "/{id}/log",
    operation_id="deployments.log",
    summary="The log: lines as JSON, or with `Accept: text/plain` all of it as text",
    response_model=list[LogLine],
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def log(
    actor: CurrentActor,
    platform: Operations,
    request: Request,
    number: DeploymentId,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
) -> list[LogLine] | StreamingResponse:
    if request.headers.get("accept", "").startswith("text/plain"):
        return log_as_text(platform.deployments.log_text(actor, number))
    return list(platform.deployments.log(actor, number, after, limit))


@api.get(
    "/{id}/events",
    operation_id="deployments.log.follow",
    summary="Follow a deployment live",
    description="Lines and stages as they come (server-sent events; each `data` is one event as below), then the end. "
    "Ask again with `Last-Event-ID`, or `after`, to go on where a stream broke off.",
    response_class=StreamingResponse,
    responses={200: {"model": LogEvent, "content": {"text/event-stream": {"schema": EVENT}}}},
)
async def follow(
    actor: CurrentActor,
    request: Request,
    number: DeploymentId,
    after: After = 0,
    last_event_id: Annotated[str | None, Header(description="`seq` of the last line that was received.")] = None,
) -> StreamingResponse:
    live = events.live_of(request)
    opened = await live.open(actor, number, events.resume_after(last_event_id, after))
    token, source, platform = bearer(request), source_of(request), platform_of(request)

    def look() -> None:
        may_follow(platform, platform.tokens.authenticate(token, source), number)

    return events.stream(while_let_in(live.follow(opened), look))


def may_follow(platform: Platform, actor: Actor, number: int) -> None:
    """Raise Refused where an actor may see a deployment's log no more."""
    platform.deployments.log(actor, number, BIGGEST_ID, 1)  # behind the last line: nothing is read, but asked for


def log_as_text(pieces: Iterator[str]) -> StreamingResponse:
    """A log as plain text. The first block is read before the answer begins, so that errors are still told."""
    blocks = _blocks(pieces)
    first = next(blocks, "")
    return StreamingResponse(chain([first], blocks), media_type="text/plain; charset=utf-8")


def _blocks(pieces: Iterator[str]) -> Iterator[str]:
    """Pieces joined into blocks: each one that is sent costs a change of threads."""
    block: list[str] = []
    size = 0
    for piece in pieces:
        block.append(piece)
        size += len(piece)
        if size >= BLOCK:
            yield "".join(block)
            block, size = [], 0
    yield "".join(block)
