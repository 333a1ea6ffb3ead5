"""From a request to an Actor. What the actor may do is not decided here: the operations do that, at one gate."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from branchline.domain.access import Actor
from branchline.domain.errors import Unauthenticated
from branchline.server.platform import Platform

OPEN_ROUTES = frozenset(
    {"/healthz", "/metrics", "/api/openapi.json", "/login", "/static/{file}"},
)
"""All that answers without a login. Everything else needs an actor; a test walks all routes."""

# only the description of the scheme is wanted of it: it would answer with an error of a shape of its own
_scheme = HTTPBearer(auto_error=False, description="A token from `branchline token create`.", scheme_name="token")


def platform_of(request: Request) -> Platform:
    """The operations behind this server."""
    return cast(Platform, request.app.state.platform)


def source_of(request: Request) -> str:
    """The network address that the request came from."""
    return request.client.host if request.client else ""


def bearer(request: Request) -> str:
    """The token that the request carries; raises Unauthenticated without one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if not scheme:
        raise Unauthenticated(
            "The request carries no token.", hint="Log in with `branchline login`, or send `Authorization: Bearer …`."
        )
    if scheme.lower() != "bearer":
        raise Unauthenticated(
            "The request's Authorization header is of another kind.", hint="Send `Authorization: Bearer TOKEN`."
        )
    return check_token(token)


def check_token(token: str) -> str:
    """Return what could be a token at all; raises Unauthenticated for anything else."""
    if not token or len(token) > 1000 or not token.isascii() or not token.isprintable():
        raise Unauthenticated("That is not a token.", hint="Give the whole token, and nothing else.")
    return token


def current_actor(request: Request, _described: Annotated[object, Depends(_scheme)]) -> Actor:
    """Who asks, by bearer token. Cookies count for nothing here, so no other site can act through a browser."""
    actor = platform_of(request).tokens.authenticate(bearer(request), source_of(request))
    request.state.actor = actor.name
    return actor


CurrentActor = Annotated[Actor, Depends(current_actor)]
Operations = Annotated[Platform, Depends(platform_of)]
