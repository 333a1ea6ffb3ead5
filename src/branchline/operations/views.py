"""Read models: what people are shown of projects, environments and deployments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from branchline.deployment_records import StageRecord
from branchline.domain.changes import Changes
from branchline.domain.deployment import Deployment, State
from branchline.domain.environment import Environment
from branchline.operations.outcome import outcome
from branchline.records import Records
from branchline.wire import DeploymentView, EnvironmentView, FailureView, StageView
from branchline.wire_changes import ChangesView, LayerChangesView

_NOT_YOURS = "Your role does not show which keys it has."


class Views:
    """Turns records into what the API answers. `url` says where people open a hostname."""

    def __init__(self, url: Callable[[str], str]) -> None:
        self._url = url

    def environment(self, records: Records, environment: Environment) -> EnvironmentView:
        """What is live there, what runs, what waits."""
        newest = records.deployments.page([environment.project], environment.name, None, 20)
        live = records.deployments.get(environment.live_deployment) if environment.live_deployment else None
        running = next((one for one in newest if one.state is State.RUNNING), None)
        last = next((one for one in newest if one.state.final and one.state is not State.SUPERSEDED), None)
        shown = {one.id: one for one in self.deployments(records, [one for one in (live, running, last) if one])}
        _, hostname = records.environments.some([environment.id])[environment.id]
        return EnvironmentView(
            project=environment.project,
            name=environment.name,
            tier=environment.tier,
            url=self._url(hostname) if hostname else None,
            live=shown[live.id] if live else None,
            running=shown[running.id] if running else None,
            last=shown[last.id] if last else None,
            trouble=environment.trouble,
            queued=sum(one.state is State.QUEUED for one in newest),
        )

    def story(self, records: Records, deployment: Deployment, *, with_keys: bool) -> DeploymentView:
        """One deployment with all that is known of it; names of config keys only for whoever may see them."""
        view = self.deployment(records, deployment)
        stages = records.deployments.stages(deployment.id)
        changes = records.deployments.changes(deployment.id)
        gone = deployment.switched_at and deployment.state is State.SUCCEEDED and not view.live
        replaced_by = records.deployments.replaced_by(deployment) if gone else None
        return view.model_copy(
            update={
                "stages": [stage_view(one) for one in stages],
                "outcome": outcome(deployment, stages, live=view.live, replaced_by=replaced_by),
                "replaced_by": replaced_by.id if replaced_by else None,
                "changes": changes_view(changes, with_keys=with_keys) if changes else None,
            }
        )

    def deployment(self, records: Records, deployment: Deployment) -> DeploymentView:
        """One deployment as lists have it: nothing that would make them long."""
        return self.deployments(records, [deployment])[0]

    def deployments(self, records: Records, found: Sequence[Deployment]) -> list[DeploymentView]:
        """As lists have them, in two questions to the database however many they are."""
        places = records.environments.some({one.environment_id for one in found}) if found else {}
        releases = {one.release for one in found if one.release}
        built = records.releases.built(releases) if releases else {}
        return [self._listed(one, *places[one.environment_id], built.get(one.release or 0)) for one in found]

    def _listed(
        self, deployment: Deployment, environment: Environment, hostname: str | None, built: tuple[int, str] | None
    ) -> DeploymentView:
        failure = deployment.failure
        release, image = built or (None, None)
        return DeploymentView(
            id=deployment.id,
            project=deployment.project,
            environment=deployment.environment,
            ref=deployment.ref,
            commit=deployment.commit,
            subject=deployment.subject,
            state=deployment.state,
            actor=deployment.actor,
            proof=deployment.proof,
            source=deployment.source,
            trigger=deployment.trigger,
            reason=deployment.reason,
            requested_at=deployment.requested_at,
            started_at=deployment.started_at,
            finished_at=deployment.finished_at,
            release=release,
            image=image,
            switched_at=deployment.switched_at,
            undone_at=deployment.undone_at,
            runner=deployment.runner,
            attempts=deployment.attempt,
            replaces=deployment.replaces,
            superseded_by=deployment.superseded_by,
            cancel_requested=deployment.cancel_requested,
            cancelled_by=deployment.cancelled_by,
            failed_stage=deployment.failed_stage,
            failure=FailureView(**vars(failure)) if failure else None,
            url=self._url(hostname) if hostname else None,
            live=environment.live_deployment == deployment.id,
            config=dict(deployment.config) if deployment.config is not None else None,
        )


def changes_view(changes: Changes, *, with_keys: bool) -> ChangesView:
    """What changed; where names of config keys are not for the reader, only which layers are at other versions."""
    view = ChangesView.model_validate(changes.to_json())
    if with_keys:
        return view
    layers = [
        LayerChangesView(layer=one.layer, before=one.before, after=one.after, unknown=_NOT_YOURS) for one in view.config
    ]
    return view.model_copy(update={"config": layers})


def stage_view(record: StageRecord) -> StageView:
    """One stage, with its seconds once it has ended."""
    took = (record.finished_at - record.started_at).total_seconds() if record.finished_at else None
    return StageView(
        name=record.name,
        state=record.state,
        started_at=record.started_at,
        finished_at=record.finished_at,
        seconds=took,
        note=record.note,
        attempts=record.attempts,
    )
