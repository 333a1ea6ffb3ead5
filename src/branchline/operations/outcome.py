"""What came of a deployment, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from branchline.deployment_records import StageRecord
from branchline.domain.deployment import Deployment, State


def outcome(about: Deployment, stages: Sequence[StageRecord], *, live: bool, replaced_by: Deployment | None) -> str:
    """One sentence. `live` says whether users have it now, `replaced_by` whom they got after it."""
    match about.state:
        case State.QUEUED:
            told = "Waits for its turn."
        case State.RUNNING:
            told = _under_way(about, stages)
        case State.SUPERSEDED:
            told = f"Superseded by {about.superseded_by}, a newer one, before it began."
        case State.CANCELLED:
            when = f"in {about.failed_stage}" if about.failed_stage else "before it began"
            told = f"Cancelled by {about.cancelled_by or 'somebody'} {when}."
        case State.SUCCEEDED:
            told = _while_live(about, live, replaced_by)
        case State.UNDONE | State.FAILED | State.BROKEN:
            told = _what_went_wrong(about, live)
    return told


def seconds_of(begin: datetime | None, end: datetime | None) -> float | None:
    """Seconds between two moments, to the millisecond; None where one of them has not come."""
    return round((end - begin).total_seconds(), 3) if begin and end else None


def _under_way(about: Deployment, stages: Sequence[StageRecord]) -> str:
    stop = f" {about.cancelled_by or 'Somebody'} asked to cancel it." if about.cancel_requested else ""
    return (f"Under way, in {stages[-1].name}." if stages else "Under way.") + stop


def _what_went_wrong(about: Deployment, live: bool) -> str:
    said = f": {about.failure.sentence}" if about.failure else "."
    if about.state is State.UNDONE:
        after = _span(seconds_of(about.switched_at, about.undone_at))
        again = f"deployment {about.replaces} is live again" if about.replaces else "nothing was live before"
        return f"Undone{f' {after} after the switch' if after else ''}, {again}{said}"
    how = "Failed" if about.state is State.FAILED else "Broke"
    where = f" in {about.failed_stage}" if about.failed_stage else ""
    return f"{how}{where}{', and is live all the same' if live else ''}{said}"


def _while_live(about: Deployment, live: bool, replaced_by: Deployment | None) -> str:
    if live:
        since = about.switched_at
        return f"Live since {since.astimezone(UTC):%d %b %Y, %H:%M:%S} UTC." if since else "Live."
    if replaced_by is None:
        return "Went live, and is not any more."
    after = _span(seconds_of(about.switched_at, replaced_by.switched_at))
    return f"Went live; replaced by {replaced_by.id}{f' after {after}' if after else ''}."


def _span(seconds: float | None) -> str:
    """A time span in one number: `0.4 s`, `12 s`, `3 min`, `5 h`, `2 days`; empty where there is none."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    for size, unit in ((2 * 86400, "days"), (2 * 3600, "h"), (2 * 60, "min")):
        if seconds >= size:
            return f"{int(seconds * 2 // size)} {unit}"
    return f"{int(seconds)} s"
