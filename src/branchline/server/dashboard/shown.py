"""How things are shown: templates, times and states in words."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from branchline import __version__
from branchline.domain.access import Actor, Permission
from branchline.domain.deployment import State
from branchline.domain.environment import short
from branchline.domain.layers import told
from branchline.domain.pipeline import AFTER_SWITCH, Stage
from branchline.server.dashboard.timeline import timeline
from branchline.wire import Problem

STATIC_TYPES = {
    "branchline.css": "text/css; charset=utf-8",
    "branchline.js": "text/javascript; charset=utf-8",
    "htmx.js": "text/javascript; charset=utf-8",
    "htmx.LICENSE": "text/plain; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

STATES = {
    State.QUEUED: "queued",
    State.RUNNING: "deploying",
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.BROKEN: "platform broke",
    State.UNDONE: "undone",
    State.CANCELLED: "cancelled",
    State.SUPERSEDED: "superseded",
}

BEFORE_SWITCH = frozenset(stage.value for stage in Stage if stage not in AFTER_SWITCH | {Stage.SWITCH})


def page(request: Request, template: str, status: int = 200, **content: Any) -> Response:
    """Render a page, or the part of one."""
    return HTMLResponse(_templates().get_template(template).render(path=request.scope["path"], **content), status)


def problem_page(request: Request, found: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem, for a person in front of a browser."""
    response = page(request, "problem.html", status=found.status, found=found)
    response.headers.update(headers or {})
    return response


@cache
def static(name: str) -> tuple[bytes, str]:
    """A static file and a digest of it."""
    content = (files("branchline.server.dashboard") / "static" / name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:12]


def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long ago something was, in one number: `just now`, `3 min ago`, `5 d ago`."""
    seconds = ((now or datetime.now(UTC)) - _aware(moment)).total_seconds()
    if seconds < 10:
        return "just now"
    return f"{duration(seconds, parts=1)} ago"


def duration(seconds: float, parts: int = 2) -> str:
    """A time span as people say it: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    left = int(seconds)
    words: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if left >= size and len(words) < parts:
            words.append(f"{left // size} {unit}")
            left %= size
        elif words:
            break
    return " ".join(words)


def clock(moment: datetime) -> str:
    """Date and time of day, in UTC."""
    return _aware(moment).astimezone(UTC).strftime("%d %b %Y, %H:%M:%S UTC")


def code(text: str) -> Markup:
    """A sentence whose words between backticks are shown as code; all of it is escaped."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    shown = (Markup("<code>{}</code>").format(part) if odd % 2 else escape(part) for odd, part in enumerate(parts))
    return Markup("").join(shown)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _branch(ref: str) -> str:
    """A ref without the word `branch`, which is what most refs are."""
    return short(ref).removeprefix("branch ")


def _may(actor: Actor, permission: str, project: str | None = None) -> bool:
    """Whether to offer something; whether it is allowed is decided elsewhere."""
    return actor.may(Permission(permission), project)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("branchline.server.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"ago": ago, "duration": duration, "clock": clock, "code": code, "branch": _branch}
    environment.filters["layers"] = told
    environment.globals |= {
        "states": STATES,
        "before_switch": BEFORE_SWITCH,
        "version": __version__,
        "static": lambda name: f"/static/{name}?v={static(name)[1]}",
        "now": lambda: datetime.now(UTC),
        "may": _may,
        "timeline": timeline,
    }
    return environment
