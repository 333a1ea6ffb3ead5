"""The dashboard's pages: overview, project, deployment with its live log."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from branchline.domain.access import Actor
from branchline.domain.deployment import Trigger
from branchline.domain.errors import BranchlineError, NotFound
from branchline.server import events, problems
from branchline.server.api import Before, DeploymentId, ProjectName
from branchline.server.api.deployments import After, log_as_text, may_follow
from branchline.server.auth import Operations, platform_of, while_let_in
from branchline.server.dashboard.account import account_pages
from branchline.server.dashboard.cookies import session_id
from branchline.server.dashboard.login import Form, Visitor, login_pages, same_origin
from branchline.server.dashboard.register import register_pages
from branchline.server.dashboard.shown import STATIC_TYPES, page, static
from branchline.server.platform import Platform
from branchline.server.source import source_of
from branchline.wire import NewDeployment, Problem

PAGE_SIZE = 25
MOST_LINES = 5000
"""Lines of a log that its page shows, so that a browser keeps up with the longest; the whole is one click away."""

A_YEAR = "public, max-age=31536000, immutable"

pages = APIRouter(include_in_schema=False)
guarded = [Depends(same_origin)]


@pages.get("/")
def overview(request: Request, actor: Visitor, platform: Operations) -> Response:
    """Every project and what is live in its environments."""
    template = "parts/projects.html" if _is_part(request) else "overview.html"
    return page(request, template, actor=actor, projects=platform.projects.list(actor))


@pages.get("/projects/{project}")
def project(
    request: Request,
    actor: Visitor,
    platform: Operations,
    project: ProjectName,
    environment: Annotated[str | None, Query(max_length=400)] = None,
    before: Before = None,
) -> Response:
    """One project: its environments and its deployments."""
    return _project_page(request, actor, platform, project, environment, before)


@pages.post("/projects/{project}/deployments", dependencies=guarded)
def deploy(request: Request, actor: Visitor, platform: Operations, project: ProjectName, fields: Form) -> Response:
    """Ask for a deployment, and go and watch it; where it cannot be, say so beside the form."""
    asked = {"ref": fields.get("ref", "").strip(), "reason": fields.get("reason", "").strip()}
    commit = fields.get("commit", "").strip() or None
    try:
        new = NewDeployment(**asked, commit=commit, trigger=Trigger.DASHBOARD)
        if not new.ref:
            return _project_page(request, actor, platform, project, asked=asked, found=_no_ref())
        queued = platform.deployments.request(actor, project, new.ref, new.commit, new.trigger, new.reason)
    except ValidationError as error:
        found = problems.invalid([{**one, "loc": ("form", *one["loc"])} for one in error.errors()])
    except NotFound:
        raise
    except BranchlineError as error:
        found = problems.problem(error)
    else:
        return RedirectResponse(f"/deployments/{queued.id}", 303)
    request.state.problem = found.code
    return _project_page(request, actor, platform, project, asked=asked, found=found)


@pages.get("/deployments/{id}")
def deployment(request: Request, actor: Visitor, platform: Operations, number: DeploymentId) -> Response:
    """One deployment: its stages and its log."""
    view = platform.deployments.show(actor, number)
    if _is_part(request):
        return page(request, "parts/story.html", actor=actor, deployment=view)
    after = platform.deployments.before_the_last(actor, number, MOST_LINES)
    return page(request, "deployment.html", actor=actor, deployment=view, after=after, most_lines=MOST_LINES)


@pages.post("/deployments/{id}/cancel", dependencies=guarded)
def cancel(actor: Visitor, platform: Operations, number: DeploymentId) -> Response:
    """Ask a deployment to stop."""
    platform.deployments.cancel(actor, number)
    return RedirectResponse(f"/deployments/{number}", 303)


@pages.get("/deployments/{id}/log")
def log(actor: Visitor, platform: Operations, number: DeploymentId) -> Response:
    """The whole log as text."""
    return log_as_text(platform.deployments.log_text(actor, number))


@pages.get("/deployments/{id}/events")
async def follow(
    request: Request,
    actor: Visitor,
    number: DeploymentId,
    after: After = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The same stream as the API's, for a browser that has a cookie and no token."""
    live = events.live_of(request)
    opened = await live.open(actor, number, events.resume_after(last_event_id, after))
    session, source, platform = session_id(request), source_of(request), platform_of(request)

    def look() -> None:
        may_follow(platform, platform.sessions.authenticate(session, source), number)

    return events.stream(while_let_in(live.follow(opened), look))


@pages.get("/static/{file}")
def static_file(request: Request, file: Annotated[str, Path(max_length=100)]) -> Response:
    """Style, scripts, icon. Their addresses carry a digest, so browsers keep them for good."""
    if file not in STATIC_TYPES:
        raise NotFound(f"There is no static file {file!r}.", code="unknown_path")
    content, digest = static(file)
    fresh = request.query_params.get("v") == digest
    return Response(
        content,
        media_type=STATIC_TYPES[file],
        headers={"Cache-Control": A_YEAR if fresh else "public, max-age=300", "ETag": f'"{digest}"'},
    )


pages.include_router(login_pages)
pages.include_router(register_pages)
pages.include_router(account_pages)


def _project_page(
    request: Request,
    actor: Actor,
    platform: Platform,
    name: str,
    environment: str | None = None,
    before: int | None = None,
    *,
    asked: dict[str, str] | None = None,
    found: Problem | None = None,
) -> Response:
    query = urlencode({key: value for key, value in (("environment", environment), ("before", before)) if value})
    content = {
        "address": f"/projects/{quote(name)}" + (f"?{query}" if query else ""),
        "actor": actor,
        "project": platform.projects.show(actor, name),
        "deployments": platform.deployments.list(actor, name, environment, before, PAGE_SIZE),
        "environment": environment,
        "before": before,
        "asked": asked or {"ref": "", "reason": ""},
        "found": found,
    }
    template = "parts/project.html" if _is_part(request) else "project.html"
    return page(request, template, status=found.status if found else 200, **content)


def _no_ref() -> Problem:
    return Problem(
        code="bad_request",
        title="There is no ref to deploy.",
        hint="Name a branch, as `develop`, or a tag, as `v1.2.0`.",
        status=422,
    )


def _is_part(request: Request) -> bool:
    """Whether htmx keeps a page fresh, rather than a person opening it."""
    return "hx-request" in request.headers
