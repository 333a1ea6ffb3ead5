"""The server's application: API, dashboard and what surrounds them, around one set of operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import Response

from branchline.domain.errors import BranchlineError, TooMany
from branchline.server import dashboard, problems
from branchline.server.api import audit, config, deployments, environments, logins, members, projects, status, tokens
from branchline.server.api.description import describe
from branchline.server.attempts import Attempts
from branchline.server.events import Live
from branchline.server.frame import Frame
from branchline.server.metrics import Metrics
from branchline.server.platform import Platform
from branchline.server.source import Network
from branchline.wire import Problem

ROUTERS = (
    status.api,
    projects.api,
    environments.api,
    config.api,
    deployments.api,
    members.api,
    members.groups_api,
    tokens.whoami_api,
    tokens.api,
    logins.login_api,
    logins.sessions_api,
    audit.api,
    dashboard.pages,
)

log = structlog.get_logger(__name__)


class Server(Frame):
    """The application that a web server runs. `live` holds the open streams: close them before stopping.

    `trusted` are the proxies whose word about the source of a request counts.
    """

    def __init__(self, platform: Platform, trusted: Sequence[Network] = ()) -> None:
        self.live = Live(platform)
        self.metrics = Metrics(platform, lambda: self.live.watched)
        self.application = build_application(platform, self.live, self.metrics)
        super().__init__(self.application, self.metrics.observe, _tell, trusted)


def build_application(platform: Platform, live: Live, metrics: Metrics) -> FastAPI:
    """The routes and what becomes of errors in them."""
    application = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # the framework's telemetry would record messages of exceptions; ours does not
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    application.openapi = lambda: describe(application)  # type: ignore[method-assign]
    application.state.platform = platform
    application.state.live = live
    application.state.metrics = metrics
    application.state.attempts = Attempts()
    for router in ROUTERS:
        application.include_router(router)
    application.add_exception_handler(BranchlineError, _ours)
    application.add_exception_handler(RequestValidationError, _invalid)
    application.add_exception_handler(HTTPException, _framework)
    application.add_exception_handler(Exception, _unexpected)
    application.add_exception_handler(dashboard.LoginNeeded, dashboard.send_to_login)
    return application


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, BranchlineError)  # noqa: S101 what the handler is registered for
    if error.status >= 500:
        log.warning("platform_broke", code=error.code, sentence=error.sentence)
    headers = {"Retry-After": str(error.after)} if isinstance(error, TooMany) else None
    return _tell(request, problems.problem(error), headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return _tell(request, problems.invalid(error.errors()))


async def _framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    headers = error.headers
    if error.status_code == 405:  # the framework names the methods of the first route of this path alone
        headers = {"Allow": ", ".join(sorted(_methods(request)))}
    return _tell(request, problems.http_problem(error.status_code, request.scope["path"]), headers)


def _methods(request: Request) -> set[str]:
    """All that the path of a request knows."""
    found: set[str] = set()
    for context in iter_route_contexts(request.app.routes):
        route = context.original_route
        if isinstance(route, APIRoute) and route.path_regex.match(request.scope["path"]):
            found |= route.methods or set()
    return found


async def _unexpected(request: Request, error: Exception) -> Response:
    return _tell(request, problems.incident(error))


def _tell(request: Request, found: Problem, headers: Any = None) -> Response:
    request.state.problem = found.code
    if problems.wants_page(request):
        return dashboard.problem_page(request, found, headers)
    return problems.answer(found, headers)
