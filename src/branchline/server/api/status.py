"""Whether the platform works, its numbers, and the description of the API: open to all who reach the server."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from branchline.domain.errors import PlatformBroke
from branchline.server import metrics
from branchline.server.auth import Operations

api = APIRouter(tags=["status"])


@api.api_route(
    "/healthz",
    methods=["GET", "HEAD"],
    include_in_schema=False,
)
def healthz(platform: Operations) -> Response:
    """200 when the database answers; each part of the platform by name either way."""
    try:
        parts = dict(platform.health())
    except PlatformBroke as error:
        parts = {"database": str(error)}
    works = parts.get("database") == "ok"
    return JSONResponse({"status": "ok" if works else "unwell", "parts": parts}, 200 if works else 503)


@api.get("/metrics", include_in_schema=False)
def metrics_text(request: Request) -> Response:
    """Prometheus's text format."""
    numbers = cast(metrics.Metrics, request.app.state.metrics)
    return Response(numbers.text(), headers={"Content-Type": metrics.CONTENT_TYPE})


@api.get("/api/openapi.json", include_in_schema=False)
def openapi(request: Request) -> Response:
    """The API's description."""
    return JSONResponse(request.app.openapi())
