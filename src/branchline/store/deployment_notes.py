"""What is noted of a deployment while it is carried, in SQL: most of it once, whoever carries it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from branchline.domain.changes import Changes
from branchline.domain.deployment import Deployment, Failure, State, Trigger
from branchline.domain.errors import NotFound
from branchline.store import tables as t

NOW = sa.func.clock_timestamp()

_LIGHT = [column for column in t.deployment.c if column is not t.deployment.c.changes]
"""All but what only the whole story tells: lists need not carry it."""

DEPLOYMENTS: sa.Select[Any] = (
    sa.select(*_LIGHT, t.project.c.name.label("project"), t.environment.c.name.label("environment"))
    .join_from(t.deployment, t.environment)
    .join(t.project)
)


def deployment_of(row: sa.Row[tuple[Any, ...]]) -> Deployment:
    """A row of DEPLOYMENTS in the domain's words."""
    return Deployment(
        id=row.id,
        project=row.project,
        environment=row.environment,
        environment_id=row.environment_id,
        ref=row.ref,
        commit=row.commit,
        subject=row.subject,
        state=State(row.state),
        actor=row.actor,
        trigger=Trigger(row.trigger),
        reason=row.reason,
        requested_at=row.requested_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        release=row.release_id,
        replaces=row.replaces,
        superseded_by=row.superseded_by,
        cancel_requested=row.cancel_requested,
        config=row.config,
        failed_stage=row.failed_stage,
        failure=Failure(**row.failure) if row.failure else None,
        attempt=row.attempt,
        proof=row.proof,
        source=row.source,
        runner=row.runner,
        cancelled_by=row.cancelled_by,
        switched_at=row.switched_at,
        undone_at=row.undone_at,
    )


class SqlDeploymentNotes:
    """Part of the port `Deployments`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

    def get(self, deployment: int) -> Deployment:
        """Raises NotFound (`unknown_deployment`)."""
        row = self._db.execute(DEPLOYMENTS.where(t.deployment.c.id == deployment)).first()
        if row is None:
            raise NotFound(
                f"There is no deployment {deployment}.",
                code="unknown_deployment",
                hint="`branchline deployments list` shows the newest.",
            )
        return deployment_of(row)

    def note_replaces(self, deployment: int) -> int | None:
        """Save, once, what is live in its environment; a repeat returns what was saved."""
        live = (
            sa.select(t.environment.c.live_deployment_id)
            .where(t.environment.c.id == t.deployment.c.environment_id)
            .scalar_subquery()
        )
        once = (t.deployment.c.id == deployment) & ~t.deployment.c.replaces_noted
        self._db.execute(t.deployment.update().where(once).values(replaces=live, replaces_noted=True))
        return self.get(deployment).replaces

    def note_release(self, deployment: int, release: int) -> None:
        """Say which release it is about."""
        self._change(deployment, release_id=release)

    def note_config(self, deployment: int, versions: Mapping[str, int]) -> None:
        """Pin the versions of the config's layers, by path, once."""
        once = (t.deployment.c.id == deployment) & t.deployment.c.config.is_(None)
        self._db.execute(t.deployment.update().where(once).values(config=dict(versions)))

    def note_switched(self, deployment: int) -> bool:
        """Say, once, that traffic goes to it from now on; False where that was said before."""
        return self._note_moment(deployment, t.deployment.c.switched_at)

    def note_undone(self, deployment: int) -> bool:
        """Say, once, that it has no traffic any more because it was undone; False where that was said before."""
        return self._note_moment(deployment, t.deployment.c.undone_at)

    def replaced_by(self, deployment: Deployment) -> Deployment | None:
        """The one that traffic went to after it, and stayed with; None while there is none."""
        there = t.deployment.c.environment_id == deployment.environment_id
        later = there & (t.deployment.c.id > deployment.id) & (t.deployment.c.replaces == deployment.id)
        stayed = t.deployment.c.switched_at.is_not(None) & t.deployment.c.undone_at.is_(None)
        row = self._db.execute(DEPLOYMENTS.where(later, stayed).order_by(t.deployment.c.id).limit(1)).first()
        return None if row is None else deployment_of(row)

    def note_changes(self, deployment: int, changes: Changes) -> None:
        """Keep, once, what differs from what was live."""
        once = (t.deployment.c.id == deployment) & t.deployment.c.changes.is_(None)
        self._db.execute(t.deployment.update().where(once).values(changes=changes.to_json()))

    def changes(self, deployment: int) -> Changes | None:
        """What differs from what was live; None while nobody has noted it."""
        plain = self._db.execute(sa.select(t.deployment.c.changes).where(t.deployment.c.id == deployment)).scalar()
        return None if plain is None else Changes.from_json(plain)

    def _note_moment(self, deployment: int, moment: sa.Column[Any]) -> bool:
        once = (t.deployment.c.id == deployment) & moment.is_(None)
        change = t.deployment.update().where(once).values({moment: NOW}).returning(t.deployment.c.id)
        return self._db.execute(change).scalar() is not None

    def _change(self, deployment: int, **values: Any) -> None:
        self._db.execute(t.deployment.update().where(t.deployment.c.id == deployment).values(**values))
