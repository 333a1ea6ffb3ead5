"""Lines of the register about a deployment: what each says of whom it was for, what it is, and why."""

from __future__ import annotations

from typing import Any

from branchline.deployment_records import StageRecord
from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.deployment import Deployment, Failure, State
from branchline.domain.pipeline import Stage
from branchline.operations.outcome import seconds_of
from branchline.records import Records

PLATFORM = "platform"
"""The actor of what the platform does by itself; `for` then says who asked for the deployment."""

_BEFORE_PUBLISH = frozenset({Stage.CHECKOUT, Stage.BUILD, Stage.TEST})
"""Stages after which nobody can say yet which release it is."""


def identity(about: Deployment) -> dict[str, Any]:
    """What every line says: the commit, and why it is deployed."""
    return {"ref": about.ref, "commit": about.commit, "trigger": about.trigger, "reason": about.reason}


def so_far(records: Records, deployment: int) -> dict[str, Any]:
    """What is known of a deployment now: from `publish` on its release, from `prepare` on the config's versions."""
    about = records.deployments.get(deployment)
    known: dict[str, Any] = {}
    if about.release is not None:
        release = records.releases.get(about.release)
        known |= {"release": release.number, "image": release.image}
    if about.config is not None:
        known["config"] = dict(about.config)
    return known


def what_changed(records: Records, deployment: int) -> dict[str, Any]:
    """What it changed: how many commits, which config keys, which migrations; nothing before `prepare`."""
    changes = records.deployments.changes(deployment)
    if changes is None:
        return {}
    return {
        "since": changes.since,
        "commits": changes.came.total,
        "commits_back": changes.went.total,
        "keys": changes.keys,
        "migrations": {one.path: one.what for one in changes.migrations},
    }


def by_platform(kind: Kind, about: Deployment, *details: dict[str, Any]) -> AuditEvent:
    """A line about what the platform did with a deployment."""
    detail: dict[str, Any] = {"for": about.actor, **identity(about)}
    for more in details:
        detail |= more
    return AuditEvent(kind, PLATFORM, about.project, about.environment, about.id, detail)


def stage_ended(records: Records, about: Deployment, ended: StageRecord, failure: Failure | None) -> AuditEvent:
    """The line about a stage that has just ended."""
    known: dict[str, Any] = {} if ended.name in _BEFORE_PUBLISH else so_far(records, about.id)
    if ended.name is Stage.PREPARE:
        known |= what_changed(records, about.id)
    told = {
        "stage": ended.name,
        "state": ended.state,
        "note": ended.note,
        "failure": vars(failure) if failure else None,
        "seconds": seconds_of(ended.started_at, ended.finished_at),
        "attempts": ended.attempts,
    }
    return by_platform(Kind.STAGE_ENDED, about, known, told)


def finished(records: Records, deployment: int) -> AuditEvent:
    """The line about a deployment that has just ended."""
    about = records.deployments.get(deployment)
    told = {
        "state": about.state,
        "stage": about.failed_stage,
        "failure": vars(about.failure) if about.failure else None,
        "seconds": seconds_of(about.started_at, about.finished_at),
    }
    if about.state is State.CANCELLED:
        told["cancelled_by"] = about.cancelled_by
    return by_platform(
        Kind.DEPLOYMENT_FINISHED, about, so_far(records, deployment), what_changed(records, deployment), told
    )
