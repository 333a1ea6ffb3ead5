"""Deployments and their stages, in SQL: the queue, who carries what, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from branchline.domain.deployment import Deployment, Failure, Fence, State, Trigger
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import NotFound, TakenOver
from branchline.domain.pipeline import Stage, StageState
from branchline.ports import Revision
from branchline.records import StageRecord
from branchline.store import tables as t

WAKE = "branchline_queue"
"""The channel on which runners are told that something was queued; the payload is the tier."""

_NOW = sa.func.clock_timestamp()

_DEPLOYMENTS = (
    sa.select(t.deployment, t.project.c.name.label("project"), t.environment.c.name.label("environment"))
    .join_from(t.deployment, t.environment)
    .join(t.project)
)


def _deployment(row: sa.Row[tuple[Any, ...]]) -> Deployment:
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
    )


def _stage(row: sa.Row[tuple[Any, ...]]) -> StageRecord:
    state = StageState(row.state)
    return StageRecord(
        Stage(row.name), state, row.started_at, row.finished_at, row.note, row.attempts, row.hung, row.result
    )


class SqlDeployments:
    """Port `Deployments`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

    def add(
        self, environment: Environment, revision: Revision, *, actor: str, trigger: Trigger, reason: str
    ) -> Deployment:
        """Queue a deployment and wake the runners of its tier (when the transaction ends)."""
        # Requests for one environment stand in line, so that each sees, and supersedes, the ones before it.
        self._db.execute(sa.select(t.environment.c.id).where(t.environment.c.id == environment.id).with_for_update())
        new = t.deployment.insert().values(
            environment_id=environment.id,
            ref=revision.ref,
            commit=revision.commit,
            subject=revision.subject,
            state=State.QUEUED,
            actor=actor,
            trigger=trigger,
            reason=reason,
        )
        added = self._db.execute(new.returning(t.deployment.c.id)).scalar_one()
        self._db.execute(sa.select(sa.func.pg_notify(WAKE, str(environment.tier))))
        return self.get(added)

    def supersede(self, newer: Deployment) -> list[int]:
        """End every older queued deployment of the same environment; return their numbers."""
        older = t.deployment.update().where(
            t.deployment.c.environment_id == newer.environment_id,
            t.deployment.c.state == State.QUEUED,
            t.deployment.c.id < newer.id,
        )
        ended = older.values(state=State.SUPERSEDED, superseded_by=newer.id, finished_at=_NOW)
        return list(self._db.execute(ended.returning(t.deployment.c.id)).scalars())

    def get(self, deployment: int) -> Deployment:
        """Raises NotFound (`unknown_deployment`)."""
        row = self._db.execute(_DEPLOYMENTS.where(t.deployment.c.id == deployment)).first()
        if row is None:
            raise NotFound(
                f"There is no deployment {deployment}.",
                code="unknown_deployment",
                hint="`branchline deployments list` shows the newest.",
            )
        return _deployment(row)

    def page(
        self, projects: Collection[str] | None, environment: str | None, before: int | None, limit: int
    ) -> list[Deployment]:
        """Newest first; of these projects, or of all."""
        query = _DEPLOYMENTS.order_by(t.deployment.c.id.desc()).limit(limit)
        if projects is not None:
            query = query.where(t.project.c.name.in_(projects))
        if environment is not None:
            query = query.where(t.environment.c.name == environment)
        if before is not None:
            query = query.where(t.deployment.c.id < before)
        return [_deployment(row) for row in self._db.execute(query)]

    def ask_to_cancel(self, deployment: int) -> None:
        """Note the wish; whoever runs the deployment sees it.

        Until the transaction ends nobody claims the deployment, and none of its stages begins: stages refer to its row.
        """
        self._db.execute(sa.select(t.deployment.c.id).where(t.deployment.c.id == deployment).with_for_update())
        self._change(deployment, cancel_requested=True)

    def claim(self, tier: Tier, runner: str) -> Deployment | None:
        """Take the next queued deployment: none whose environment is busy, projects with fewer running ones first."""
        running = t.deployment.alias()
        place = t.environment.alias()
        busy = sa.exists().where(
            running.c.environment_id == t.deployment.c.environment_id, running.c.state == "running"
        )
        load = (
            sa.select(sa.func.count())
            .select_from(running.join(place, running.c.environment_id == place.c.id))
            .where(place.c.project_id == t.environment.c.project_id, running.c.state == State.RUNNING)
            .scalar_subquery()
        )
        # Locking the environment as well keeps a second runner from choosing a sibling in the same instant.
        following = (
            sa.select(t.deployment.c.id)
            .join_from(t.deployment, t.environment)
            .where(t.deployment.c.state == State.QUEUED, t.environment.c.tier == tier, ~busy)
            .order_by(load, t.deployment.c.id)
            .limit(1)
            .with_for_update(of=[t.deployment, t.environment], skip_locked=True)
        )
        chosen = self._db.execute(following).scalar()
        if chosen is None:
            return None
        # Asked once more, now that the environment is locked: another runner may have claimed a sibling just before.
        take = t.deployment.update().where(t.deployment.c.id == chosen, ~busy)
        taken = take.values(
            state=State.RUNNING,
            runner=runner,
            attempt=t.deployment.c.attempt + 1,
            started_at=_NOW,
        )
        if self._db.execute(taken.returning(t.deployment.c.id)).scalar() is None:
            return None
        return self.get(chosen)

    def take_over(self, deployment: int, runner: str, instead_of: str) -> Deployment | None:
        """From now on this runner carries it, in a new attempt; None where somebody else was quicker."""
        theirs = (t.deployment.c.id == deployment) & (t.deployment.c.state == State.RUNNING)
        change = t.deployment.update().where(theirs, t.deployment.c.runner == instead_of)
        taken = change.values(runner=runner, attempt=t.deployment.c.attempt + 1).returning(t.deployment.c.id)
        return None if self._db.execute(taken).scalar() is None else self.get(deployment)

    def hold(self, fence: Fence) -> bool:
        """Keep the deployment's row until the transaction ends; raises TakenOver where a later attempt carries it.

        Returns whether somebody asked to cancel.
        """
        mine = sa.select(t.deployment.c.attempt, t.deployment.c.runner, t.deployment.c.cancel_requested)
        row = self._db.execute(mine.where(t.deployment.c.id == fence.deployment).with_for_update()).one()
        if row.attempt != fence.attempt:
            raise TakenOver(f"The runner {row.runner} carries deployment {fence.deployment} now.")
        return bool(row.cancel_requested)

    def carried_by(self, deployment: int) -> tuple[Fence, bool]:
        """Which attempt carries it, and whether somebody asked to cancel."""
        query = sa.select(t.deployment.c.attempt, t.deployment.c.cancel_requested)
        row = self._db.execute(query.where(t.deployment.c.id == deployment)).one()
        return Fence(deployment, row.attempt), row.cancel_requested

    def running(self, tier: Tier) -> list[tuple[int, str]]:
        """Every running deployment of the tier, with its runner."""
        query = (
            sa.select(t.deployment.c.id, t.deployment.c.runner)
            .join_from(t.deployment, t.environment)
            .where(t.deployment.c.state == State.RUNNING, t.environment.c.tier == tier)
            .order_by(t.deployment.c.id)
        )
        return [(row.id, row.runner) for row in self._db.execute(query)]

    def under_way(self, environment: Environment) -> list[int]:
        """The ids of those that wait or run there, oldest first."""
        there = t.deployment.c.environment_id == environment.id
        query = sa.select(t.deployment.c.id).where(there, t.deployment.c.state.in_([State.QUEUED, State.RUNNING]))
        return list(self._db.execute(query.order_by(t.deployment.c.id)).scalars())

    def at_work(self, tier: Tier) -> set[int]:
        """The ids of the tier's environments in which a deployment runs."""
        query = sa.select(t.environment.c.id).join_from(t.deployment, t.environment)
        running = (t.deployment.c.state == State.RUNNING) & (t.environment.c.tier == tier)
        return set(self._db.execute(query.where(running)).scalars())

    def begin_stage(self, deployment: int, stage: Stage) -> StageRecord:
        """Note the begin; a repeat keeps the first start and counts one attempt more."""
        new = insert(t.stage).values(deployment_id=deployment, name=stage, state=StageState.RUNNING)
        again = new.on_conflict_do_update(
            index_elements=["deployment_id", "name"], set_={"attempts": t.stage.c.attempts + 1}
        )
        return _stage(self._db.execute(again.returning(t.stage)).one())

    def end_stage(
        self, deployment: int, stage: Stage, state: StageState, note: str, result: Mapping[str, Any] | None = None
    ) -> None:
        """Write down what came of it; `result` is what a repeat gets instead of running again."""
        self._change_stage(deployment, stage, state=state, note=note, result=result, finished_at=_NOW)

    def note_hung(self, deployment: int, stage: Stage) -> None:
        """Say that the stage does not end although its time is over."""
        self._change_stage(deployment, stage, hung=True)

    def stages(self, deployment: int) -> list[StageRecord]:
        """In the order in which they began."""
        query = sa.select(t.stage).where(t.stage.c.deployment_id == deployment).order_by(t.stage.c.started_at)
        return [_stage(row) for row in self._db.execute(query)]

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

    def finish(
        self, deployment: int, state: State, failed_stage: Stage | None = None, failure: Failure | None = None
    ) -> bool:
        """End it; False where it had ended before, and nothing changes then."""
        open_still = (t.deployment.c.id == deployment) & t.deployment.c.state.in_([State.QUEUED, State.RUNNING])
        change = t.deployment.update().where(open_still)
        ended = self._db.execute(
            change.values(
                state=state,
                failed_stage=failed_stage,
                failure=vars(failure) if failure else sa.null(),
                finished_at=_NOW,
            ).returning(t.deployment.c.environment_id)
        ).scalar()
        if ended is None:
            return False
        # Another deployment of this environment may have waited for this one.
        tier = sa.select(t.environment.c.tier).where(t.environment.c.id == ended).scalar_subquery()
        self._db.execute(sa.select(sa.func.pg_notify(WAKE, tier)))
        return True

    def count_by_state(self) -> dict[tuple[State, Tier], int]:
        """How many deployments of each tier are in each state."""
        query = (
            sa.select(t.deployment.c.state, t.environment.c.tier, sa.func.count())
            .join_from(t.deployment, t.environment)
            .group_by(t.deployment.c.state, t.environment.c.tier)
        )
        return {(State(state), Tier(tier)): count for state, tier, count in self._db.execute(query)}

    def _change(self, deployment: int, **values: Any) -> None:
        self._db.execute(t.deployment.update().where(t.deployment.c.id == deployment).values(**values))

    def _change_stage(self, deployment: int, stage: Stage, **values: Any) -> None:
        mine = (t.stage.c.deployment_id == deployment) & (t.stage.c.name == stage)
        self._db.execute(t.stage.update().where(mine).values(**values))
