"""What surrounds every request: its number, its line in the log, its time, safe headers, a limit, a last resort."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Sequence

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from branchline.domain.errors import BadInput
from branchline.server import problems
from branchline.server.headers import HEADERS, TRANSPORT_SECURITY
from branchline.server.source import Network, locate
from branchline.wire import Problem

MAX_BODY = 1024 * 1024
"""Bytes. A config change is the largest thing that anybody sends."""

MAX_ADDRESS = 8 * 1024
"""Bytes of path and query."""

MAX_FIELDS = 50
"""Fields of a query. No path of ours takes more than five."""

MAX_HEADERS = 100

BODY_SECONDS = 30.0
"""In which a body must be here, however slowly it began."""

DRAIN_BYTES = 16 * 1024 * 1024
DRAIN_SECONDS = 5.0

log = structlog.get_logger(__name__)

Observe = Callable[[str, str, int, float], None]
"""Takes the route, the method, the status and the seconds until the answer began."""


Tell = Callable[[Request, Problem], Response]
"""Makes the answer that tells a problem."""


class Frame:
    """The outermost application. `observe` hears of every answer, for the metrics; `tell` words the problems.

    `trusted` are the proxies that say truly whom they speak for.
    """

    def __init__(self, app: ASGIApp, observe: Observe, tell: Tell, trusted: Sequence[Network] = ()) -> None:
        self._app = app
        self._observe = observe
        self._tell = tell
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        locate(scope, self._trusted)
        exchange = _Exchange(scope, receive, send)
        began = time.perf_counter()
        try:
            await self._answer(exchange)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", None) or "(none)"
            self._observe(route, scope["method"], exchange.status, exchange.first_byte or seconds)
            log.info(
                "request",
                request=exchange.id,
                method=scope["method"],
                route=route,
                status=exchange.status,
                ms=round(seconds * 1000, 1),
                source=scope["state"]["source"],
                actor=scope["state"].get("actor"),
                problem=scope["state"].get("problem"),
            )

    async def _answer(self, exchange: _Exchange) -> None:
        with structlog.contextvars.bound_contextvars(request=exchange.id):
            try:
                if refusal := exchange.beyond_limits:
                    await exchange.discard_body()
                    await self._refuse(exchange, problems.problem(refusal))
                elif exchange.names_nothing:
                    await self._refuse(exchange, problems.http_problem(404, exchange.scope["path"]))
                else:
                    await self._app(exchange.scope, exchange.receive_within_limit, exchange.send_with_headers)
            except ClientDisconnect:
                exchange.status = exchange.status or 499
            except asyncio.CancelledError:
                # only the web server cancels a request, and only because it stops: nothing is left to be cancelled
                if not exchange.status:
                    await self._refuse(exchange, problems.problem(problems.stopping()))
            except Exception as error:
                # where half an answer is out, the connection breaks when we return: that tells that it is not whole
                if exchange.scope["state"].get("problem") != "internal":
                    found = problems.incident(error)
                    if not exchange.status:
                        await self._refuse(exchange, found)

    async def _refuse(self, exchange: _Exchange, found: Problem) -> None:
        response = self._tell(Request(exchange.scope), found)
        await response(exchange.scope, exchange.receive_within_limit, exchange.send_with_headers)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.id = _request_id(Headers(scope=scope).get("x-request-id", ""))
        self.status = 0
        self.first_byte = 0.0
        self._receive = receive
        self._send = send
        self._read = 0
        self._began = time.perf_counter()
        self._body_until = asyncio.get_running_loop().time() + BODY_SECONDS
        self._whole = False
        scope.setdefault("state", {})["request_id"] = self.id

    @property
    def beyond_limits(self) -> BadInput | None:
        """Why the request is more than anybody needs to send; None where it is not, as far as its head tells."""
        length = Headers(scope=self.scope).get("content-length", "")
        if length.isdecimal() and int(length[:20]) > MAX_BODY:
            return problems.too_large()
        if len(self.scope["raw_path"]) + len(self.scope["query_string"]) > MAX_ADDRESS:
            return problems.address_too_long()
        if self.scope["query_string"].count(b"&") >= MAX_FIELDS:
            return problems.too_many_fields()
        if len(self.scope["headers"]) > MAX_HEADERS:
            return problems.head_too_large()
        return None

    @property
    def names_nothing(self) -> bool:
        """Whether path or query hold a NUL, which nothing of ours has in its name and databases choke on."""
        return "\x00" in self.scope["path"] or b"%00" in self.scope["query_string"]

    async def receive_within_limit(self) -> Message:
        # the framework lets its own exceptions through while it reads a body, and takes others for bad JSON
        try:
            async with asyncio.timeout_at(None if self._whole else self._body_until):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, headers={"Connection": "close"}) from None
        self._whole = not message.get("more_body", False)
        self._read += len(message.get("body", b""))
        if self._read > MAX_BODY:
            await self.discard_body()
            raise HTTPException(413)
        return message

    async def discard_body(self) -> None:
        """Read on for a while: who still sends does not see an answer that comes with a closed connection."""
        left = DRAIN_BYTES
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    async def send_with_headers(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.first_byte = time.perf_counter() - self._began
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
            if self.scope["scheme"] == "https":
                headers.setdefault("Strict-Transport-Security", TRANSPORT_SECURITY)
            headers["X-Request-Id"] = self.id
        await self._send(message)


def _request_id(offered: str) -> str:
    """The caller's own number where it is harmless, else a new one."""
    return offered if re.fullmatch(r"[A-Za-z0-9._-]{8,64}", offered) else secrets.token_hex(8)
