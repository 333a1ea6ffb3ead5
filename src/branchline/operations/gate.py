"""The one gate: every operation passes it, and each refusal is a line in the register."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from branchline.domain.access import Actor, Permission
from branchline.domain.audit import Kind
from branchline.domain.errors import Refused
from branchline.records import Store


class Gate:
    """Lets an actor through, or raises Refused and records it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def require(
        self,
        actor: Actor,
        permission: Permission,
        *,
        project: str | None = None,
        environment: str | None = None,
        deployment: int | None = None,
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        """Raise Refused unless the actor holds the permission in the project; without one, on all of the platform.

        `asked` is what the register is told besides, of what would have been done.
        """
        if not actor.may(permission, project):
            raise self._refused(actor, permission, project, environment, deployment, asked)

    def among(self, actor: Actor, permission: Permission) -> frozenset[str] | None:
        """The projects in which the actor holds the permission, None for all; raises Refused where there is none."""
        if not actor.may_somewhere(permission):
            raise self._refused(actor, permission)
        return actor.projects(permission)

    def _refused(
        self,
        actor: Actor,
        permission: Permission,
        project: str | None = None,
        environment: str | None = None,
        deployment: int | None = None,
        asked: Mapping[str, Any] | None = None,
    ) -> Refused:
        detail = {"permission": permission, "role": actor.role(project), **(asked or {})}
        with self._store.transaction() as records:
            records.register.add(actor.event(Kind.ACCESS_REFUSED, project, environment, deployment, detail))
        return actor.refusal(permission, project)
