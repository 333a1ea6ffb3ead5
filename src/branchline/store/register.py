"""The register and the tokens, in SQL."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from branchline.domain.access import Role
from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.errors import Conflict, NotFound
from branchline.records import TokenRecord
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
            )
        )

    def page(self, project: str | None, before: int | None, limit: int) -> list[tuple[int, datetime, AuditEvent]]:
        """Newest first."""
        query = sa.select(t.audit_event).order_by(t.audit_event.c.id.desc()).limit(limit)
        if project is not None:
            query = query.where(t.audit_event.c.project == project)
        if before is not None:
            query = query.where(t.audit_event.c.id < before)
        return [
            (
                row.id,
                row.at,
                AuditEvent(Kind(row.kind), row.actor, row.project, row.environment, row.deployment, row.detail),
            )
            for row in self._db.execute(query)
        ]


class SqlTokens:
    """Port `Tokens`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

    def add(self, name: str, role: Role, digest: str) -> None:
        """Raises Conflict (`token_exists`)."""
        new = insert(t.token).values(name=name, role=role, digest=digest).on_conflict_do_nothing()
        if self._db.execute(new.returning(t.token.c.id)).scalar() is None:
            raise Conflict(
                f"There is a token {name!r} already.",
                code="token_exists",
                hint="Choose another name, or revoke that one with `branchline token revoke`.",
            )

    def by_digest(self, digest: str) -> TokenRecord | None:
        """The token, noting that it was used; None for an unknown one."""
        row = self._db.execute(sa.select(t.token).where(t.token.c.digest == digest)).first()
        if row is None:
            return None
        # Once a minute is exact enough for "last used", and spares a write per request.
        stale = sa.or_(
            t.token.c.last_used_at.is_(None),
            t.token.c.last_used_at < sa.func.now() - sa.text("interval '1 minute'"),
        )
        self._db.execute(t.token.update().where(t.token.c.id == row.id, stale).values(last_used_at=sa.func.now()))
        return _token(row)

    def all(self) -> list[TokenRecord]:
        """By name."""
        return [_token(row) for row in self._db.execute(sa.select(t.token).order_by(t.token.c.name))]

    def remove(self, name: str) -> None:
        """Raises NotFound (`unknown_token`)."""
        gone = self._db.execute(t.token.delete().where(t.token.c.name == name).returning(t.token.c.id)).scalar()
        if gone is None:
            raise NotFound(
                f"There is no token {name[:60]!r}.", code="unknown_token", hint="See `branchline token list`."
            )


def _token(row: sa.Row[tuple[object, ...]]) -> TokenRecord:
    return TokenRecord(row.name, Role(row.role), row.created_at, row.last_used_at)
