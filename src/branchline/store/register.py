"""The register, in SQL."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from branchline.domain.audit import AuditEvent, Kind
from branchline.store import tables as t


class SqlRegister:
    """Port `Register`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

    def add(self, event: AuditEvent) -> None:
        """Write one line."""
        self._db.execute(
            t.audit_event.insert().values(
                kind=event.kind,
                actor=event.actor,
                project=event.project,
                environment=event.environment,
                deployment=event.deployment,
                detail=event.detail,
                proof=event.proof,
                source=event.source,
            )
        )

    def page(
        self, projects: Collection[str] | None, before: int | None, limit: int
    ) -> list[tuple[int, datetime, AuditEvent]]:
        """Newest first; of these projects, or of all and of the platform itself."""
        query = sa.select(t.audit_event).order_by(t.audit_event.c.id.desc()).limit(limit)
        if projects is not None:
            query = query.where(t.audit_event.c.project.in_(projects))
        if before is not None:
            query = query.where(t.audit_event.c.id < before)
        return [(row.id, row.at, _event(row)) for row in self._db.execute(query)]


def _event(row: sa.Row[tuple[Any, ...]]) -> AuditEvent:
    return AuditEvent(
        Kind(row.kind), row.actor, row.project, row.environment, row.deployment, row.detail, row.proof, row.source
    )
