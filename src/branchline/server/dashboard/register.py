"""The register as a page: who did what, filtered, newest first."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from branchline.domain.audit import Kind, Wanted
from branchline.server.api import Before
from branchline.server.auth import Operations
from branchline.server.dashboard.login import Visitor
from branchline.server.dashboard.shown import page
from branchline.wire_audit import AuditLine

PAGE_SIZE = 50
MOST_LOOKS = 5
"""What no index leads to is looked for in so many windows of rows; after that the reader says whether to go on."""

register_pages = APIRouter(include_in_schema=False)

Filter = Annotated[str, Query(max_length=200)]


@register_pages.get("/register")
def register(
    request: Request,
    visitor: Visitor,
    platform: Operations,
    project: Filter = "",
    environment: Filter = "",
    actor: Filter = "",
    kind: Filter = "",
    text: Filter = "",
    before: Before = None,
) -> Response:
    """The lines that the visitor may see, and which of them they want."""
    asked = {"project": project, "environment": environment, "actor": actor, "kind": kind, "text": text}
    chosen = {name: value.strip() for name, value in asked.items() if value.strip()}
    ask = chosen.get
    wanted = Wanted(ask("project"), ask("environment"), ask("actor"), ask("kind"), text=ask("text"))
    lines: list[AuditLine] = []
    following = before
    for _ in range(MOST_LOOKS):
        found = platform.audit.list(visitor, wanted, following, PAGE_SIZE - len(lines))
        lines += found.items
        following = found.next
        if following is None or len(lines) >= PAGE_SIZE:
            break
    pages = {"before": before, "next": following}
    filters = {"asked": asked, "chosen": chosen, "kinds": list(Kind)}
    return page(request, "register.html", actor=visitor, lines=lines, in_words=_in_words, pages=pages, filters=filters)


def _in_words(detail: dict[str, Any]) -> str:
    """What a line says besides, on one line: `ref refs/heads/develop · trigger cli`."""
    said = {name: value for name, value in detail.items() if value not in (None, "", [], {})}
    return " · ".join(f"{name} {_plain(value)}" for name, value in said.items())


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
