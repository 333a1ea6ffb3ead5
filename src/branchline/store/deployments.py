"""Deployments and their stages, in SQL: the queue, who carries what, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from branchline.deployment_records import StageRecord
from branchline.domain.deployment import Deployment, Failure, Fence, State, Trigger
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import TakenOver
from branchline.domain.pipeline import Stage, StageState
from branchline.ports import Revision
from branchline.store import tables as t
from branchline.store.deployment_notes import DEPLOYMENTS, NOW, SqlDeploymentNotes, deployment_of

WAKE = "branchline_queue"
"""The channel on which runners are told that something was queued; the payload is the tier."""


def _stage(row: sa.Row[tuple[Any, ...]]) -> StageRecord:
    state = StageState(row.state)
    return StageRecord(
        Stage(row.name), state, row.started_at, row.finished_at, row.note, row.attempts, row.hung, row.result
    )


class SqlDeployments(SqlDeploymentNotes):
    """Port `Deployments`."""

    def add(
        self,
        environment: Environment,
        revision: Revision,
        *,
        actor: str,
        trigger: Trigger,
        reason: str,
        proof: str = "",
        source: str = "",
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
            proof=proof,
            source=source,
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
        ended = older.values(state=State.SUPERSEDED, superseded_by=newer.id, finished_at=NOW)
        return list(self._db.execute(ended.returning(t.deployment.c.id)).scalars())

    def page(
        self, projects: Collection[str] | None, environment: str | None, before: int | None, limit: int
    ) -> list[Deployment]:
        """Newest first; of these projects, or of all."""
        query = DEPLOYMENTS.order_by(t.deployment.c.id.desc()).limit(limit)
        if projects is not None:
            query = query.where(t.project.c.name.in_(projects))
        if projects is not None and len(projects) == 1 and environment is not None:
            # as a number that is known first: then an index has them in this order, however many others there are
            named = (t.project.c.name == next(iter(projects))) & (t.environment.c.name == environment)
            place = sa.select(t.environment.c.id).join_from(t.environment, t.project).where(named).correlate(None)
            query = query.where(t.deployment.c.environment_id == place.scalar_subquery())
        elif environment is not None:
            query = query.where(t.environment.c.name == environment)
        if before is not None:
            query = query.where(t.deployment.c.id < before)
        return [deployment_of(row) for row in self._db.execute(query)]

    def ask_to_cancel(self, deployment: int, by: str) -> None:
        """Note the wish, and who was the first to have it; whoever runs the deployment sees it.

        Until the transaction ends nobody claims the deployment, and none of its stages begins: stages refer to its row.
        """
        self._db.execute(sa.select(t.deployment.c.id).where(t.deployment.c.id == deployment).with_for_update())
        self._change(deployment, cancel_requested=True, cancelled_by=sa.func.coalesce(t.deployment.c.cancelled_by, by))

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
            started_at=NOW,
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
    ) -> StageRecord | None:
        """Write down what came of it; `result` is what a repeat gets instead of running again.

        None where it had ended before with a result: who was not told that a transaction was committed asks again.
        """
        open_still = _of(deployment, stage) & t.stage.c.result.is_(None)
        change = t.stage.update().where(open_still).values(state=state, note=note, result=result, finished_at=NOW)
        row = self._db.execute(change.returning(t.stage)).first()
        return None if row is None else _stage(row)

    def note_hung(self, deployment: int, stage: Stage) -> None:
        """Say that the stage does not end although its time is over."""
        self._db.execute(t.stage.update().where(_of(deployment, stage)).values(hung=True))

    def stages(self, deployment: int) -> list[StageRecord]:
        """In the order in which they began."""
        query = sa.select(t.stage).where(t.stage.c.deployment_id == deployment).order_by(t.stage.c.started_at)
        return [_stage(row) for row in self._db.execute(query)]

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
                finished_at=NOW,
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


def _of(deployment: int, stage: Stage) -> sa.ColumnElement[bool]:
    return (t.stage.c.deployment_id == deployment) & (t.stage.c.name == stage)
