"""Following deployments live: one poll for each that somebody looks at, however many look, told as server-sent events.

The operations are asked rather than notified, so that a follower misses nothing whichever process wrote it, and goes on
from any line after a broken connection.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar, cast

import anyio
import structlog
from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from branchline.domain.access import Actor
from branchline.domain.errors import BranchlineError, PlatformBroke
from branchline.server.platform import Platform
from branchline.wire import DeploymentView, LogEvent, LogLine, StageView

POLL = 0.15
"""Seconds between two looks at a deployment."""

KEEP_ALIVE = 15.0
"""Seconds after which a silent stream says that it is still there, so that nothing on the way closes it."""

PATIENCE = 30.0
"""Seconds that the database may be away before streams are closed; their clients then ask again."""

BATCH = 500
"""Lines read at a time, and kept for followers who are up to date."""

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(eq=False)
class Watch:
    """What is known of a deployment, kept fresh for all who follow it.

    Every line after `floor` is in `lines`; who is further behind reads what is missing for himself.
    """

    view: DeploymentView
    floor: int
    last: int
    lines: deque[LogLine] = field(default_factory=lambda: deque(maxlen=BATCH))
    current: bool = False
    """The last look found all that there was."""
    complete: bool = False
    """It is over, and the last line is here."""
    lost: bool = False
    """Nobody keeps this fresh any more."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Some follower has told all that is here."""
    followers: int = 0
    task: asyncio.Task[None] | None = None

    def take(self, view: DeploymentView, lines: Sequence[LogLine]) -> None:
        """Keep what a look found."""
        for line in lines:
            if len(self.lines) == BATCH:
                self.floor = self.lines[0].seq
            self.lines.append(line)
            self.last = line.seq
        current = len(lines) < BATCH
        fresh = bool(lines) or view != self.view or current != self.current
        self.view, self.current = view, current
        self.complete = current and view.state.final
        if fresh or self.complete:
            self.tell()

    def tell(self) -> None:
        """Wake up all followers."""
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass(frozen=True)
class Opened:
    """A permission to follow: the actor may see this deployment, and `after` is where they want to go on."""

    actor: Actor
    view: DeploymentView
    after: int
    known: bool
    """Whether `after` is a line that exists, so that others may count from it too."""


class Live:
    """All deployments that somebody follows."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._watches: dict[int, Watch] = {}
        self._closing = False
        # threads of our own, so that followers and requests never starve each other
        self._threads = anyio.CapacityLimiter(4)

    @property
    def watched(self) -> int:
        """How many deployments are being polled."""
        return len(self._watches)

    async def open(self, actor: Actor, number: int, after: int) -> Opened:
        """Check that the actor may follow a deployment; raises what `deployments.show` raises."""

        def look() -> Opened:
            view = self._platform.deployments.show(actor, number)
            before = self._platform.deployments.log(actor, number, after - 1, 1) if after > 0 else []
            return Opened(actor, view, after, bool(before) and before[0].seq == after)

        return await self._in_thread(look)

    async def follow(self, opened: Opened) -> AsyncGenerator[list[LogEvent], None]:
        """What happened since `after` and what happens from now on, some events at a time; an empty list is a sign of
        life. Ends after the `end`, or without one when the platform is in trouble or the server stops.
        """
        watch = self._join(opened)
        cursor, told = opened.after, dict[str, StageView]()
        try:
            while not self._closing:
                # what changes from here on sets this event, so that no change falls between looking and waiting
                changed, view = watch.changed, watch.view
                behind = cursor < watch.floor
                complete, lost = watch.complete and not behind, watch.lost
                lines = await self._catch_up(opened, watch, cursor) if behind else _after(watch.lines, cursor)
                events = list(_in_order(view, told, lines, partly=behind or not watch.current))
                cursor = lines[-1].seq if lines else max(cursor, watch.floor)
                if complete:
                    # All who follow share what one of them was shown: what not everybody may see is left out.
                    yield [*events, LogEvent(end=view.model_copy(update={"changes": None}))]
                    return
                if events:
                    yield events
                elif lost:
                    return
                elif not behind:
                    watch.wanted.set()
                    if not await _happens(changed, KEEP_ALIVE):
                        yield []
        except BranchlineError as error:
            log.warning("follower_lost", deployment=watch.view.id, code=error.code, sentence=str(error))
        finally:
            self._leave(watch)

    def close(self) -> None:
        """End all streams: the server stops. Their clients ask again, and find its successor."""
        self._closing = True
        for watch in self._watches.values():
            watch.tell()

    def _join(self, opened: Opened) -> Watch:
        number = opened.view.id
        watch = self._watches.get(number)
        if watch is None:
            start = opened.after if opened.known else 0
            watch = self._watches[number] = Watch(opened.view, floor=start, last=start)
            watch.task = asyncio.create_task(self._keep_fresh(watch, opened.actor))
        watch.followers += 1
        return watch

    def _leave(self, watch: Watch) -> None:
        watch.followers -= 1
        if watch.followers == 0:
            self._forget(watch)
            if watch.task is not None:
                watch.task.cancel()

    def _forget(self, watch: Watch) -> None:
        if self._watches.get(watch.view.id) is watch:
            del self._watches[watch.view.id]

    async def _keep_fresh(self, watch: Watch, actor: Actor) -> None:
        """Look at the deployment until it is over or nobody follows it any more."""
        number = watch.view.id
        in_trouble_since: float | None = None

        def look() -> tuple[DeploymentView, Sequence[LogLine]]:
            # in this order: the lines that led to a state are then never older than the state
            view = self._platform.deployments.show(actor, number)
            return view, self._platform.deployments.log(actor, number, watch.last, BATCH)

        try:
            while not watch.complete:
                try:
                    view, lines = await self._in_thread(look)
                except PlatformBroke as error:
                    in_trouble_since = in_trouble_since or time.monotonic()
                    if time.monotonic() - in_trouble_since > PATIENCE:
                        log.warning("following_given_up", deployment=number, code=error.code, sentence=str(error))
                        return
                    await asyncio.sleep(1)
                    continue
                in_trouble_since = None
                watch.wanted.clear()
                watch.take(view, lines)
                if len(lines) < BATCH:
                    await asyncio.sleep(POLL)
                else:
                    # a long log is read no faster than it is told, or each follower would have to read it again
                    await _happens(watch.wanted, 1.0)
        except BranchlineError as error:
            log.warning("following_ended", deployment=number, code=error.code, sentence=str(error))
        except Exception:
            log.exception("following_broke", deployment=number)
        finally:
            if not watch.complete:
                watch.lost = True
                self._forget(watch)
            watch.tell()

    async def _catch_up(self, opened: Opened, watch: Watch, cursor: int) -> Sequence[LogLine]:
        read = self._platform.deployments.log
        return await self._in_thread(lambda: read(opened.actor, watch.view.id, cursor, BATCH))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(call, limiter=self._threads)


class EventStream(StreamingResponse):
    """Server-sent events. Whatever ends the answer also ends the generator behind it, at once."""

    media_type = "text/event-stream"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(cast(AsyncGenerator[str, None], self.body_iterator)):
            await super().__call__(scope, receive, send)


def live_of(request: Request) -> Live:
    """The server's followers."""
    return cast(Live, request.app.state.live)


def stream(events: AsyncGenerator[list[LogEvent], None]) -> EventStream:
    """Answer with events as they come."""
    return EventStream(_encoded(events), headers={"X-Accel-Buffering": "no"})


def resume_after(last_event_id: str | None, after: int) -> int:
    """Where a client goes on: what its browser remembers wins over the address."""
    remembered = last_event_id or ""
    return int(remembered) if remembered.isascii() and remembered.isdecimal() and len(remembered) < 19 else after


async def _encoded(events: AsyncGenerator[list[LogEvent], None]) -> AsyncGenerator[str, None]:
    async with aclosing(events):
        yield "retry: 1000\n\n"
        async for some in events:
            yield "".join(map(_encode, some)) or ": still here\n\n"


def _encode(event: LogEvent) -> str:
    number = f"id: {event.line.seq}\n" if event.line else ""
    return f"{number}data: {event.model_dump_json(exclude_none=True)}\n\n"


def _after(lines: Sequence[LogLine] | deque[LogLine], cursor: int) -> list[LogLine]:
    return [line for line in lines if line.seq > cursor]


def _in_order(
    view: DeploymentView, told: dict[str, StageView], lines: Sequence[LogLine], *, partly: bool
) -> Iterator[LogEvent]:
    """Lines and changed stages as they happened; with `partly`, no stage that is later than the last line."""
    news = deque(sorted((s for s in view.stages if told.get(s.name) != s), key=_moment))

    def stages(until: datetime | None) -> Iterator[LogEvent]:
        while news and (until is None or _moment(news[0]) <= until):
            stage = news.popleft()
            told[stage.name] = stage
            yield LogEvent(stage=stage)

    for line in lines:
        yield from stages(line.at)
        yield LogEvent(line=line)
    if not partly:
        yield from stages(None)


def _moment(stage: StageView) -> datetime:
    return stage.finished_at or stage.started_at


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
