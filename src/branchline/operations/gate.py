"""The one gate: every operation passes it, and each refusal is a line in the register."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from branchline.domain.access import Actor, Permission
from branchline.domain.audit import Kind
from branchline.domain.errors import Refused
from branchline.records import Store

WINDOW = 60.0
"""Seconds in which an actor's refusals are counted together."""

MOST_LINES = 60
"""Refusals of one actor in that time that have a line each: whoever asks on and on fills no disk."""

_MOST_ACTORS = 10_000


class Gate:
    """Lets an actor through, or raises Refused and records it."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._spared = _Spared(clock)

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

        `asked` is what the register is told besides, of what would have been done. Where a `deployment` was asked for
        by its number, whoever may not see its project is not told which that is.
        """
        if not actor.may(permission, project):
            raise self._refused(actor, permission, project, environment, deployment, asked)

    def among(self, actor: Actor, permission: Permission, project: str | None = None) -> frozenset[str] | None:
        """The projects in which the actor holds the permission, None for all; raises Refused where there is none.

        Where one is named it is that one, or raises Refused.
        """
        if project is not None:
            self.require(actor, permission, project=project)
            return frozenset({project})
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
        untold = self._spared.due(actor.name)
        if untold is not None:
            more = {"untold": untold} if untold else {}
            detail = {"permission": permission, "role": actor.role(project), **(asked or {}), **more}
            with self._store.transaction() as records:
                records.register.add(actor.event(Kind.ACCESS_REFUSED, project, environment, deployment, detail))
        if deployment is not None and not actor.may(Permission.READ, project):
            return Refused(
                f"{actor.name} may not see deployment {deployment}.",
                hint="It is one of a project in which you have no role, or for which your token is not good. "
                "An admin gives roles with `branchline member add`.",
            )
        return actor.refusal(permission, project)


class _Spared:
    """Counts the refusals that get no line of their own, for the next line of their actor.

    In memory: what a server has not told when it ends is in its log, request by request.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def due(self, who: str) -> int | None:
        """How many of theirs had no line before this one, where this one is to have a line; else None."""
        with self._lock:
            now = self._clock()
            began, count = self._counts.pop(who, (now, 0))
            over = now - began >= WINDOW
            self._counts[who] = (now, 1) if over else (began, count + 1)
            if len(self._counts) > _MOST_ACTORS:
                self._counts.popitem(last=False)
            if over:
                return max(count - MOST_LINES, 0)
            return 0 if count < MOST_LINES else None
