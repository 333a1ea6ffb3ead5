"""From a request to an Actor. What the actor may do is not decided here: the operations do that, at one gate."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Annotated, TypeVar, cast

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from branchline.domain.access import Actor
from branchline.domain.errors import PlatformBroke, Refused, Unauthenticated
from branchline.server.attempts import attempts_of
from branchline.server.platform import Platform
from branchline.server.source import source_of

OPEN_ROUTES = frozenset(
    {
        "/healthz",
        "/metrics",
        "/api/openapi.json",
        "/api/v1/login",
        "/api/v1/device",
        "/api/v1/device/token",
        "/login",
        "/login/{provider}",
        "/login/{provider}/callback",
        "/static/{file}",
    },
)
"""All that answers without a login. Everything else needs an actor; a test walks all routes."""

LOOK_AGAIN = 15.0
"""Seconds between two looks at whether whoever follows a stream may still do so."""

T = TypeVar("T")

log = structlog.get_logger(__name__)

# only the description of the scheme is wanted of it: it would answer with an error of a shape of its own
_scheme = HTTPBearer(auto_error=False, description="A token from `branchline token create`.", scheme_name="token")


def platform_of(request: Request) -> Platform:
    """The operations behind this server."""
    return cast(Platform, request.app.state.platform)


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
    return token


def check_token(token: str) -> str:
    """Return what could be a token at all; raises Unauthenticated for anything else."""
    if not token or len(token) > 1000 or not token.isascii() or not token.isprintable():
        raise Unauthenticated("That is not a token.", hint="Give the whole token, and nothing else.")
    return token


@contextmanager
def attempt(request: Request, presented: str) -> Iterator[None]:
    """An attempt to get in with a token: refused where there were too many; counted, and told, where it fails."""
    attempts, source = attempts_of(request), source_of(request)
    attempts.check(source, presented)
    try:
        yield
    except Unauthenticated as error:
        attempts.failed(source)
        platform_of(request).logins.failed("token", error.code, source)
        raise
    attempts.succeeded(presented)


def current_actor(request: Request, _described: Annotated[object, Depends(_scheme)]) -> Actor:
    """Who asks, by bearer token. Cookies count for nothing here, so no other site can act through a browser."""
    presented = bearer(request)
    with attempt(request, presented):
        actor = platform_of(request).tokens.authenticate(check_token(presented), source_of(request))
    request.state.actor = actor.name
    return actor


async def while_let_in(events: AsyncGenerator[T, None], look: Callable[[], object]) -> AsyncGenerator[T, None]:
    """A stream, until `look` refuses: a session was ended, a token revoked, a role in the project taken away.

    A stream may go on for hours. It is a use of a session like any other, and keeps it from being idle.
    """
    looked = time.monotonic()
    async with aclosing(events):
        async for some in events:
            if time.monotonic() - looked >= LOOK_AGAIN:
                looked = time.monotonic()
                try:
                    await run_in_threadpool(look)
                except Refused:
                    return
                except PlatformBroke as error:  # nobody can tell now; the stream itself ends where that lasts
                    log.warning("follower_unknown", code=error.code)
            yield some


CurrentActor = Annotated[Actor, Depends(current_actor)]
Operations = Annotated[Platform, Depends(platform_of)]
