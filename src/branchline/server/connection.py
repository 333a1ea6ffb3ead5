"""One connection: uvicorn's HTTP/1.1, with an end to what is slow, and to more than we can carry."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from branchline.server import problems
from branchline.server.headers import HEADERS
from branchline.wire import Problem

MAX_HEAD = 32 * 1024
"""Bytes of a request's first line and headers."""


class Wait(Enum):
    """What of a request may be late."""

    HEAD = auto()
    REST = auto()


class Connection(H11Protocol):
    """Waits `head_seconds` for a request's head, and `rest_seconds` for what is left of one that has its answer.

    More than `at_once` connections are told to come again. What arrives slowly does not put off the end: whoever holds
    connections open for nothing would else keep everybody out.
    """

    head_seconds = 10.0
    rest_seconds = 5.0
    at_once = 800  # beneath the 1024 files that many systems let a process have

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._waits_for: Wait | None = None
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > self.at_once:
            self._refuse(problems.problem(problems.crowded()))
        else:
            self._wait_for(Wait.HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_for(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)
            self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def _look(self) -> None:
        """See what is to be waited for now. A body that the application still reads is its own affair."""
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            self._wait_for(None)
        elif self.conn.their_state is h11.SEND_BODY:
            self._wait_for(Wait.REST)
        elif self.cycle is None or self.conn.trailing_data[0]:
            self._wait_for(Wait.HEAD)
        else:
            self._wait_for(None)
            if self.timeout_keep_alive_task is None:  # what came last was the rest of a body
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

    def _wait_for(self, what: Wait | None) -> None:
        if what is self._waits_for:
            return
        if self._late is not None:
            self._late.cancel()
        self._waits_for, self._late = what, None
        if what is Wait.HEAD:
            self._late = self.loop.call_later(self.head_seconds, self._head_is_late)
        elif what is Wait.REST:
            self._late = self.loop.call_later(self.rest_seconds, self.transport.close)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 uvicorn's own words
        """Tell what is wrong with a request that cannot be understood, as all problems are told."""
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:  # half an answer is out already
            self.transport.close()
            return
        large = len(self.conn.trailing_data[0]) > MAX_HEAD
        self._refuse(problems.problem(problems.head_too_large() if large else problems.not_http()))

    def _head_is_late(self) -> None:
        if not self.transport.is_closing():
            self._refuse(problems.problem(problems.too_slow()))

    def _refuse(self, found: Problem) -> None:
        """Answer without the application, and close."""
        self._wait_for(None)
        self._unset_keepalive_if_required()
        response = problems.answer(found)
        headers = {**HEADERS, "Cache-Control": "no-store", **response.headers, "Connection": "close"}
        head = h11.Response(
            status_code=found.status, headers=list(headers.items()), reason=STATUS_PHRASES.get(found.status, b"")
        )
        for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
