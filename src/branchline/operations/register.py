"""Reading the register, and the platform's own pulse."""

from __future__ import annotations

from branchline.domain.access import Actor, Permission
from branchline.domain.errors import PlatformBroke
from branchline.operations.gate import Gate
from branchline.records import Store
from branchline.wire import AuditLine, MetricsView


class Audit:
    """The register, for those who may read."""

    def __init__(self, store: Store, gate: Gate) -> None:
        self._store = store
        self._gate = gate

    def list(
        self, actor: Actor, project: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[AuditLine]:
        """Newest first: of a project, or of all that the actor may read."""
        among = self._gate.among(actor, Permission.READ) if project is None else frozenset({project})
        if project is not None:
            self._gate.require(actor, Permission.READ, project=project)
        with self._store.transaction() as records:
            page = records.register.page(among, before, limit)
        return [AuditLine(id=number, at=at, **vars(event)) for number, at, event in page]


class Pulse:
    """Whether the platform is well, and its numbers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def health(self) -> dict[str, str]:
        """Each part that the server needs: `ok`, or what is wrong with it."""
        try:
            self._store.ping()
        except PlatformBroke as error:
            return {"database": error.sentence}
        return {"database": "ok"}

    def metrics(self) -> MetricsView:
        """What is counted in the store."""
        with self._store.transaction() as records:
            deployments = records.deployments.count_by_state()
        return MetricsView(deployments=deployments, stages=self._store.stage_seconds())
