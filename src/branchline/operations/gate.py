"""The one gate: every operation passes it, and each refusal is a line in the register."""

from __future__ import annotations

from branchline.domain.access import Actor, Permission
from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.errors import Refused
from branchline.records import Store


class Gate:
    """Lets an actor through, or raises Refused and records it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def require(
        self, actor: Actor, permission: Permission, *, project: str | None = None, environment: str | None = None
    ) -> None:
        """Raise Refused unless the actor holds the permission."""
        try:
            actor.require(permission)
        except Refused:
            with self._store.transaction() as records:
                detail = {"permission": permission, "role": actor.role, "proof": actor.proof}
                event = AuditEvent(Kind.ACCESS_REFUSED, actor.name, project, environment, None, detail)
                records.register.add(event)
            raise
