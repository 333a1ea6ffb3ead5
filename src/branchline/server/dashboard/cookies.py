"""The two cookies: the id of a session, and what a browser keeps while it is at a provider."""

from __future__ import annotations

from fastapi import Request, Response

from branchline.operations.logins import PATIENCE
from branchline.operations.sessions import LIFETIME

_SESSION = "branchline_session"
_LOGIN = "branchline_login"


def session_id(request: Request) -> str:
    """The id of the session that the browser sends; empty without one."""
    return request.cookies.get(_named(_SESSION, request), "")


def begin_session(request: Request, response: Response, session: str) -> None:
    """Log the browser in. Nothing but our own pages can make it send this."""
    _set(request, response, _SESSION, session, int(LIFETIME.total_seconds()), "strict")


def end_session(request: Request, response: Response) -> None:
    """Log the browser out."""
    _set(request, response, _SESSION, "", 0, "strict")


def keepsake(request: Request) -> str:
    """What the browser keeps of a login that it began; empty without one."""
    return request.cookies.get(_named(_LOGIN, request), "")


def keep(request: Request, response: Response, secret: str) -> None:
    """Have it kept. Lax, because it has to come along when the provider sends the browser back."""
    _set(request, response, _LOGIN, secret, int(PATIENCE.total_seconds()), "lax")


def forget(request: Request, response: Response) -> None:
    """The login is over."""
    _set(request, response, _LOGIN, "", 0, "lax")


def _named(name: str, request: Request) -> str:
    # the prefix has browsers refuse it from a neighbouring host name, and without https
    return f"__Host-{name}" if request.url.scheme == "https" else name


def _set(request: Request, response: Response, name: str, value: str, seconds: int, same_site: str) -> None:
    response.set_cookie(
        _named(name, request),
        value,
        max_age=seconds,
        path="/",
        httponly=True,
        samesite="strict" if same_site == "strict" else "lax",
        secure=request.url.scheme == "https",
    )
