"""Who carries which deployment: taking the next one, taking over from the dead, giving up; each with its line."""

from __future__ import annotations

from branchline.domain.audit import Kind
from branchline.domain.deployment import Deployment, Failure, State
from branchline.domain.environment import Tier
from branchline.operations.entries import by_platform, finished
from branchline.operations.outcome import seconds_of
from branchline.records import Store


def claim(store: Store, tier: Tier, runner: str) -> Deployment | None:
    """The next queued deployment of the tier, which this runner carries from now on."""
    with store.transaction() as records:
        claimed = records.deployments.claim(tier, runner)
        if claimed is not None:
            begun = {"runner": runner, "waited": seconds_of(claimed.requested_at, claimed.started_at)}
            records.register.add(by_platform(Kind.DEPLOYMENT_STARTED, claimed, begun))
    return claimed


def take_over(store: Store, deployment: int, runner: str, instead_of: str) -> Deployment | None:
    """Carry it on where `instead_of` has stopped; None where somebody else was quicker."""
    with store.transaction() as records:
        taken = records.deployments.take_over(deployment, runner, instead_of)
        if taken is not None:
            told = {"runner": runner, "instead_of": instead_of, "attempt": taken.attempt}
            records.register.add(by_platform(Kind.DEPLOYMENT_TAKEN_OVER, taken, told))
    return taken


def give_up(store: Store, deployment: Deployment, attempts: int) -> None:
    """End what so many attempts did not bring to an end."""
    why = Failure(
        "given_up",
        f"The platform did not bring this deployment to an end in {attempts} attempts.",
        "Deploy again; the runners' logs say what went wrong.",
    )
    with store.transaction() as records:
        if records.deployments.finish(deployment.id, State.BROKEN, failure=why):
            records.register.add(finished(records, deployment.id))
