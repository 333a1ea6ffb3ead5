"""Logging in and out, and who a browser's request comes from."""

from __future__ import annotations

from typing import Annotated, cast
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from branchline.domain.access import Actor
from branchline.domain.errors import BadInput, Refused, Unauthenticated
from branchline.server.auth import Operations, check_token, platform_of, source_of
from branchline.server.dashboard.sessions import COOKIE, Sessions
from branchline.server.dashboard.shown import page

login_pages = APIRouter(include_in_schema=False)


class LoginNeeded(Exception):
    """The browser is not logged in, or not any more."""


def sessions_of(request: Request) -> Sessions:
    """What opens the cookies of this server."""
    return cast(Sessions, request.app.state.sessions)


def visitor(request: Request) -> Actor:
    """Who asks, by the cookie of their login; raises LoginNeeded without one."""
    token = sessions_of(request).open(request.cookies.get(COOKIE, ""))
    if token is None:
        raise LoginNeeded
    try:
        actor = platform_of(request).tokens.authenticate(token, source_of(request))
    except Unauthenticated:
        raise LoginNeeded from None
    request.state.actor = actor.name
    return actor


def same_origin(request: Request) -> None:
    """Refuse what a page of another site sends.

    The cookie's SameSite=Strict keeps other sites from acting in a visitor's name already; this also keeps them from
    logging a browser in as somebody else, and stands where a neighbour on the same site is hostile.
    """
    origin = request.headers.get("origin", "")
    if request.headers.get("sec-fetch-site") == "same-origin":
        return
    if origin and urlsplit(origin).netloc == request.headers.get("host"):
        return
    raise Refused(
        "The form was sent from another site.",
        code="other_site",
        hint="Open the dashboard anew and send the form from there.",
    )


async def form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises BadInput for what no form of ours sends."""
    try:
        pairs = parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError:
        raise BadInput("The form cannot be read.", hint="Open the page anew and send the form again.") from None
    return dict(pairs)


Visitor = Annotated[Actor, Depends(visitor)]
Form = Annotated[dict[str, str], Depends(form)]


async def send_to_login(request: Request, _: Exception) -> Response:
    """What a browser gets that is not logged in."""
    if "hx-request" in request.headers:
        # a part of a page asks: the whole page has to leave for the login
        current = urlsplit(request.headers.get("hx-current-url", "/"))
        return Response(status_code=401, headers={"HX-Redirect": _login_url(current.path)})
    if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
        # a link from a chat or mail: the strict cookie stayed at home; asked for once more, from here, it comes along
        return page(request, "opening.html", address=request.scope["path"])
    return RedirectResponse(_login_url(request.scope["path"] if request.method == "GET" else "/"), 303)


@login_pages.get("/login")
def login_page(request: Request, then: Annotated[str, Query(max_length=2000)] = "/") -> Response:
    """Asks for a token."""
    return page(request, "login.html", then=_local(then))


@login_pages.post("/login", dependencies=[Depends(same_origin)])
def log_in(request: Request, platform: Operations, fields: Form) -> Response:
    """Begins a session with a token that is good."""
    token, then = fields.get("token", "").strip(), _local(fields.get("then", "/"))
    try:
        request.state.actor = platform.tokens.authenticate(check_token(token), source_of(request)).name
    except Unauthenticated as error:
        request.state.problem = error.code
        return page(request, "login.html", status=401, then=then, problem=error)
    response = RedirectResponse(then, 303)
    sessions_of(request).begin(response, token, secure=request.url.scheme == "https")
    return response


@login_pages.post("/logout", dependencies=[Depends(same_origin)])
def log_out(_: Visitor) -> Response:
    """Ends the session in this browser."""
    response = RedirectResponse("/login", 303)
    Sessions.end(response)
    return response


def _login_url(path: str) -> str:
    return "/login" if path in {"/", ""} else f"/login?then={quote(path)}"


def _local(address: str) -> str:
    """An address on this server; anything that could lead elsewhere becomes the first page."""
    parts = urlsplit(address)
    plain = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if plain and not parts.scheme and not parts.netloc and "\\" not in address else "/"
