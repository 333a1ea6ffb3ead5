"""Follows a deployment to its end, and goes on where it was when the connection breaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from branchline.cli.client import Client, path
from branchline.cli.lazily import wire
from branchline.cli.progress import Progress
from branchline.domain.errors import PlatformBroke, Unreachable

PATIENCE_SECONDS = 60.0
"""How long a platform that does not answer is asked again: a restart takes a few seconds."""
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.1, 2.0
STEADY_SECONDS = 5.0
"""A connection that held this long was a good one: losing it is a new break."""


def watch(client: Client, deployment: wire.DeploymentView, progress: Progress) -> wire.DeploymentView:
    """Show the deployment until it ends, and return how it ended. Raises Unreachable after a minute of silence."""
    with progress:
        progress.begin(deployment)
        for batch in events(client, deployment.id, progress.notice):
            progress.show(batch)
            for event in batch:
                if event.end:
                    progress.end(event.end)
                    return event.end
    raise AssertionError("a stream of events ends by its last event or by an error")


def events(
    client: Client,
    deployment: int,
    notice: Callable[[str], None],
    *,
    after: int = 0,
    patience: float = PATIENCE_SECONDS,
) -> Iterator[list[wire.LogEvent]]:
    """The events of a deployment, those that arrive together in one list, up to the `end`.

    A broken connection is resumed behind the last line. `notice` is told once for each break.
    """
    where = f"{path('deployments', deployment)}/events"
    pause, lost_at = FIRST_PAUSE_SECONDS, 0.0
    while True:
        opened, came_on = time.monotonic(), False
        try:
            with client.stream(where, after) as chunks:
                for batch in parsed(chunks):
                    came_on = came_on or any(event.line for event in batch)
                    after = max([after, *(event.line.seq for event in batch if event.line)])
                    if batch:
                        yield batch
                    if any(event.end for event in batch):
                        return
            lost = Unreachable(f"The platform keeps ending the stream of deployment {deployment}.")
        except PlatformBroke as error:
            if error.code in {"not_branchline", "untrusted_certificate", "no_https"}:
                raise
            lost = Unreachable(error.sentence)
        now = time.monotonic()
        if came_on or not lost_at or now - opened > STEADY_SECONDS:
            pause, lost_at = FIRST_PAUSE_SECONDS, now
            notice(f"The connection was lost; trying again for {patience:.0f} s.")
        elif now - lost_at > patience:
            lost.hint = f"The deployment goes on without us. Follow it: `branchline deployments logs {deployment} -f`."
            raise lost
        time.sleep(pause)
        pause = min(pause * 2, LAST_PAUSE_SECONDS)


def parsed(chunks: Iterable[bytes]) -> Iterator[list[wire.LogEvent]]:
    """Make events of a `text/event-stream`: a list for each chunk, empty for a mere sign of life.

    Lines end where the protocol says so and nowhere else: text may hold any of Unicode's other line separators.
    """
    pending, data = bytearray(), bytearray()
    for chunk in chunks:
        searched = max(len(pending) - 1, 0)
        pending += chunk
        if b"\n" not in chunk:
            continue
        batch: list[wire.LogEvent] = []
        start = 0
        while (end := pending.find(b"\n", max(start, searched))) >= 0:
            line = bytes(pending[start:end]).removesuffix(b"\r")
            start = end + 1
            if line.startswith(b"data:"):
                data += (b"\n" if data else b"") + line[5:].removeprefix(b" ")
            elif not line and data:
                batch.append(_event(bytes(data)))
                data.clear()
        del pending[:start]
        yield batch


def _event(data: bytes) -> wire.LogEvent:
    try:
        return wire.LogEvent.model_validate_json(data, extra="ignore")
    except ValueError as error:
        raise PlatformBroke(
            "The platform's stream of events cannot be understood.",
            code="not_branchline",
            hint="Bring the command line and the platform to the same version.",
        ) from error
