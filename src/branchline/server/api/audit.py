"""The register."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from branchline.server.api import Before, ProjectFilter, router
from branchline.server.auth import CurrentActor, Operations
from branchline.wire import AuditLine

api = router("/audit", "audit")


@api.get("", operation_id="audit.list", summary="Who did what, newest first")
def lines(
    actor: CurrentActor,
    platform: Operations,
    project: ProjectFilter = None,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[AuditLine]:
    return list(platform.audit.list(actor, project, before, limit))
