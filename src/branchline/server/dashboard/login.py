"""Logging in and out, and who a browser's request comes from."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from branchline.domain.access import Actor
from branchline.domain.errors import BadInput, BranchlineError, Refused, Unauthenticated
from branchline.operations.logins import Returned
from branchline.operations.tokens import digest_of
from branchline.server.attempts import LOGINS, SESSIONS, attempts_of
from branchline.server.auth import Operations, attempt, check_token, platform_of
from branchline.server.dashboard import cookies
from branchline.server.dashboard.shown import page
from branchline.server.source import source_of

login_pages = APIRouter(include_in_schema=False)

Provider = Annotated[str, Path(max_length=100)]
Answered = Annotated[str, Query(max_length=4000)]


class LoginNeeded(Exception):
    """The browser is not logged in, or not any more."""


def visitor(request: Request) -> Actor:
    """Who asks, by the cookie of their login; raises LoginNeeded without one."""
    try:
        actor = platform_of(request).sessions.authenticate(cookies.session_id(request), source_of(request))
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


def opened(request: Request) -> None:
    """Refuse what is no page that somebody opens.

    Any site can name our addresses as pictures of its own. Whoever looked at it would use up the logins that count for
    their office.
    """
    if request.headers.get("sec-fetch-dest", "document") != "document":
        raise Refused("This is a page, and no part of another.", code="other_site", hint="Open the dashboard itself.")


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
    asked = request.scope["path"] + (f"?{request.url.query}" if request.url.query else "")
    if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
        # a link from a chat or mail: the strict cookie stayed at home; asked for once more, from here, it comes along
        return page(request, "opening.html", address=asked)
    return RedirectResponse(_login_url(asked if request.method == "GET" else "/"), 303)


@login_pages.get("/login")
def login_page(request: Request, then: Annotated[str, Query(max_length=2000)] = "/") -> Response:
    """Offers the providers, and asks for a token."""
    return _login_page(request, _local(then))


@login_pages.post("/login", dependencies=[Depends(same_origin)])
def log_in(request: Request, platform: Operations, fields: Form) -> Response:
    """Begins a session with a token that is good."""
    token, then = fields.get("token", "").strip(), _local(fields.get("then", "/"))
    try:
        with attempt(request, token):
            attempts_of(request).spend(SESSIONS, digest_of(token))
            session, actor = platform.sessions.begin_with_token(check_token(token), source_of(request), _agent(request))
    except Unauthenticated as error:
        return _login_page(request, then, error)
    return _logged_in(request, session, actor.name, RedirectResponse(then, 303))


@login_pages.get("/login/{provider}", dependencies=[Depends(opened)])
def go_to_provider(
    request: Request,
    platform: Operations,
    provider: Provider,
    then: Annotated[str, Query(max_length=2000)] = "/",
    moved: bool = False,
) -> Response:
    """Sends the browser to a provider.

    The provider will send it to the server's public address, and only there the browser has what it is to keep.
    """
    attempts_of(request).check(source_of(request))
    attempts_of(request).spend(LOGINS, source_of(request))
    if request.headers.get("host") != urlsplit(platform.logins.url).netloc and not moved:
        again = urlencode({"then": _local(then), "moved": "true"})
        return RedirectResponse(f"{platform.logins.url}/login/{quote(provider)}?{again}", 303)
    begun = platform.logins.begin(provider, _local(then))
    response = RedirectResponse(begun.address, 303)
    cookies.keep(request, response, begun.keepsake)
    return response


@login_pages.get("/login/{provider}/callback", dependencies=[Depends(opened)])
def come_back(
    request: Request,
    platform: Operations,
    provider: Provider,
    state: Answered = "",
    code: Answered = "",
    error: Answered = "",
) -> Response:
    """Where the provider sends the browser back to."""
    source = source_of(request)
    attempts_of(request).check(source)
    returned = Returned(provider, state, code, error, source, _agent(request))
    try:
        entered = platform.logins.finish(cookies.keepsake(request), returned)
    except BranchlineError as failure:
        if failure.status < 500:
            attempts_of(request).failed(source)
        response = _login_page(request, "/", failure)
    else:
        # the browser comes from another site, so a redirect would leave the strict cookie at home: it goes on from here
        opening = page(request, "opening.html", address=entered.then)
        response = _logged_in(request, entered.session, entered.name, opening)
    cookies.forget(request, response)
    return response


@login_pages.post("/logout", dependencies=[Depends(same_origin)])
def log_out(request: Request, platform: Operations, _: Visitor) -> Response:
    """Ends the session of this browser."""
    platform.sessions.end(cookies.session_id(request), source_of(request))
    return logged_out(request)


def logged_out(request: Request) -> Response:
    """What a browser gets that has no session any more."""
    response = RedirectResponse("/login", 303)
    cookies.end_session(request, response)
    return response


def _logged_in(request: Request, session: str, name: str, response: Response) -> Response:
    request.state.actor = name
    platform_of(request).sessions.end(cookies.session_id(request), source_of(request))  # the one before, if any
    cookies.begin_session(request, response, session)
    return response


def _login_page(request: Request, then: str, problem: BranchlineError | None = None) -> Response:
    if problem is not None:
        request.state.problem = problem.code
    found = {"problem": problem} if problem else {}
    providers = platform_of(request).logins.providers()
    return page(
        request, "login.html", status=problem.status if problem else 200, then=then, providers=providers, **found
    )


def _agent(request: Request) -> str:
    return request.headers.get("user-agent", "")


def _login_url(path: str) -> str:
    return "/login" if path in {"/", ""} else f"/login?then={quote(path)}"


def _local(address: str) -> str:
    """An address on this server; anything that could lead elsewhere becomes the first page."""
    parts = urlsplit(address)
    plain = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if plain and not parts.scheme and not parts.netloc and "\\" not in address else "/"
