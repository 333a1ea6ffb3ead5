"""One's own account: where one is logged in, and which device is let in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from branchline.domain.errors import NotFound
from branchline.operations.devices import plain, shown
from branchline.server.attempts import attempts_of
from branchline.server.auth import Operations
from branchline.server.dashboard import cookies
from branchline.server.dashboard.login import Form, Visitor, logged_out, same_origin
from branchline.server.dashboard.shown import page
from branchline.server.source import source_of

account_pages = APIRouter(include_in_schema=False)
guarded = [Depends(same_origin)]


@account_pages.get("/account")
def account(request: Request, actor: Visitor, platform: Operations) -> Response:
    """Who one is, with which roles, and in which browsers."""
    sessions = platform.sessions.mine(actor, cookies.session_id(request))
    return page(request, "account.html", actor=actor, sessions=sessions)


@account_pages.post("/account/logout-everywhere", dependencies=guarded)
def log_out_everywhere(request: Request, actor: Visitor, platform: Operations) -> Response:
    """Ends every session of whoever asks."""
    platform.sessions.end_mine(actor)
    return logged_out(request)


@account_pages.get("/device")
def device_page(
    request: Request, actor: Visitor, platform: Operations, code: Annotated[str, Query(max_length=40)] = ""
) -> Response:
    """Asks for a device's code; with one, whether the device is to be let in."""
    if not code.strip():
        return page(request, "device.html", actor=actor, device=None, code="")
    try:
        with _guess(request):
            device = platform.devices.waiting(actor, code)
    except NotFound as error:
        request.state.problem = error.code
        return page(request, "device.html", status=404, actor=actor, device=None, code=code, problem=error)
    return page(request, "device.html", actor=actor, device=device, code=shown(plain(code)))


@account_pages.post("/device", dependencies=guarded)
def decide(request: Request, actor: Visitor, platform: Operations, fields: Form) -> Response:
    """Lets a device in, or sends it away."""
    code, let_in = fields.get("code", "")[:40], fields.get("decision") == "let-in"
    with _guess(request):
        device = platform.devices.decide(actor, code, let_in=let_in)
    return page(request, "device_decided.html", actor=actor, device=device, let_in=let_in)


class _guess:
    """A code that is wrong counts as a login that failed."""

    def __init__(self, request: Request) -> None:
        self._attempts, self._source = attempts_of(request), source_of(request)

    def __enter__(self) -> None:
        self._attempts.check(self._source)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NotFound):
            self._attempts.failed(self._source)
