"""Asking for deployments: who may, what for, and what happens to those that wait."""

from __future__ import annotations

from collections.abc import Iterator

from branchline.domain.access import Actor, Permission, deploy_permission, keys_permission
from branchline.domain.audit import Kind
from branchline.domain.deployment import Deployment, Failure, State, Trigger
from branchline.domain.environment import Environment, destination, hostnames_of, tier_of
from branchline.domain.errors import BadInput, Conflict
from branchline.domain.manifest import FILE_NAME, Manifest
from branchline.domain.pipeline import Stage
from branchline.domain.project import Project
from branchline.manifest_file import parse
from branchline.operations.entries import by_platform, finished, identity
from branchline.operations.gate import Gate
from branchline.operations.views import Views
from branchline.ports import Revision, Source
from branchline.records import Records, Store
from branchline.wire import DeploymentView, LogLine, Page

_LOG_PAGE = 5000


class Deployments:
    """What people do with deployments."""

    def __init__(self, store: Store, gate: Gate, views: Views, source: Source, domain: str) -> None:
        self._store = store
        self._gate = gate
        self._views = views
        self._source = source
        self._domain = domain

    def request(
        self, actor: Actor, project: str, ref: str, commit: str | None, trigger: Trigger, reason: str
    ) -> DeploymentView:
        """Queue a deployment of a ref. The environment follows from the ref and the commit's own manifest.

        Everything that can be known to be wrong is said now: an unknown ref, a repository out of reach, an invalid
        manifest, a ref that no environment follows, a hostname that is taken. Older queued deployments of the same
        environment end as superseded.
        """
        self._gate.require(actor, Permission.READ, project=project)
        with self._store.transaction() as records:
            known = records.projects.get(project)
        revision = self._source.resolve(known.name, known.repository, ref, commit)
        manifest = self._manifest(known, revision)
        place = destination(manifest, revision.ref)
        asked = {"ref": revision.ref, "commit": revision.commit, "trigger": trigger, "reason": reason}
        permission = deploy_permission(place.tier)
        self._gate.require(actor, permission, project=project, environment=place.name, asked=asked)
        with self._store.transaction() as records:
            environment = records.environments.ensure(known, place)
            records.environments.claim_hostnames(environment, hostnames_of(manifest, place.name, self._domain))
            new = self._add(records, actor, environment, revision, trigger, reason)
            for number in records.deployments.supersede(new):
                older, by = records.deployments.get(number), {"by": new.id, "by_actor": actor.name}
                records.register.add(by_platform(Kind.DEPLOYMENT_SUPERSEDED, older, by))
            return self._views.deployment(records, new)

    def apply_config(
        self, actor: Actor, project: str, environment: str, trigger: Trigger, reason: str
    ) -> DeploymentView:
        """Deploy what is live once more, with the newest config.

        Raises Conflict: `nothing_live`, or `deployment_under_way`, since that one would be superseded by an older
        commit, and takes up the newest config itself unless it is past `prepare`.
        """
        self._gate.require(actor, Permission.READ, project=project, environment=environment)
        with self._store.transaction() as records:
            place = records.environments.get(project, environment)
        self._gate.require(actor, deploy_permission(place.tier), project=project, environment=environment)
        with self._store.transaction() as records:
            records.environments.lock(place)
            place = records.environments.get(project, environment)
            if place.live_deployment is None:
                raise Conflict(
                    f"Nothing is live in {project} {environment}.",
                    code="nothing_live",
                    hint="The first deployment takes up the config by itself.",
                )
            if others := records.deployments.under_way(place):
                raise Conflict(
                    f"Deployment {others[0]} is under way in {project} {environment}.",
                    code="deployment_under_way",
                    hint="It takes up the newest config unless it is past `prepare`; `branchline env show` tells.",
                )
            live = records.deployments.get(place.live_deployment)
            revision = Revision(live.ref, live.commit, live.subject)
            new = self._add(records, actor, place, revision, trigger, reason, again=live.id)
            return self._views.deployment(records, new)

    def cancel(self, actor: Actor, deployment: int) -> DeploymentView:
        """Stop a deployment that waits, or ask the one that runs to stop; refused once traffic was switched."""
        with self._store.transaction() as records:
            about = records.deployments.get(deployment)
            environment = records.environments.get(about.project, about.environment)
        permission = deploy_permission(environment.tier)
        where = {"project": about.project, "environment": about.environment}
        self._gate.require(actor, permission, **where, deployment=deployment, asked=identity(about))
        with self._store.transaction() as records:
            # First: from here on no runner claims or switches it.
            records.deployments.ask_to_cancel(deployment, actor.name)
            about = records.deployments.get(deployment)
            if about.state.final:
                raise Conflict(
                    f"Deployment {deployment} has {about.state} already.",
                    code="deployment_over",
                    hint="There is nothing left to cancel.",
                )
            if any(record.name is Stage.SWITCH for record in records.deployments.stages(deployment)):
                raise Conflict(
                    f"Deployment {deployment} has switched the traffic already.",
                    code="past_switch",
                    hint="To go back, deploy the commit that was live before.",
                )
            detail = {"for": about.actor, **identity(about), "state": about.state}
            kind, place = Kind.DEPLOYMENT_CANCEL_ASKED, (about.project, about.environment)
            records.register.add(actor.event(kind, *place, deployment, detail))
            if about.state is State.QUEUED:
                why = Failure("cancelled", f"{actor.name} cancelled it before it began.")
                records.deployments.finish(deployment, State.CANCELLED, failure=why)
                records.register.add(finished(records, deployment))
            return self._views.deployment(records, records.deployments.get(deployment))

    def show(self, actor: Actor, deployment: int) -> DeploymentView:
        """One deployment with its whole story."""
        about = self._readable(actor, deployment)
        with self._store.transaction() as records:
            may_see_keys = actor.may(keys_permission(tier_of(about.environment)), about.project)
            return self._views.story(records, records.deployments.get(deployment), with_keys=may_see_keys)

    def log(self, actor: Actor, deployment: int, after: int = 0, limit: int = 1000) -> list[LogLine]:
        """The lines after a `seq`."""
        self._readable(actor, deployment)
        return [LogLine(**vars(line)) for line in self._store.read_log(deployment, after, limit)]

    def before_the_last(self, actor: Actor, deployment: int, count: int) -> int:
        """The `seq` after which the last `count` lines of a log come: 0 where it has no more than these."""
        self._readable(actor, deployment)
        return self._store.before_the_last(deployment, count)

    def log_text(self, actor: Actor, deployment: int) -> Iterator[str]:
        """The whole log as lines of text, a page at a time."""
        page = self.log(actor, deployment, 0, _LOG_PAGE)
        return self._lines(deployment, page)

    def _lines(self, deployment: int, page: list[LogLine]) -> Iterator[str]:
        while page:
            for line in page:
                yield f"{line.at:%H:%M:%S} {line.stage:<8} {line.text}\n"
            page = [LogLine(**vars(line)) for line in self._store.read_log(deployment, page[-1].seq, _LOG_PAGE)]

    @staticmethod
    def _add(
        records: Records,
        actor: Actor,
        environment: Environment,
        revision: Revision,
        trigger: Trigger,
        reason: str,
        **more: int,
    ) -> Deployment:
        """Queue it, with its line in the register."""
        new = records.deployments.add(
            environment,
            revision,
            actor=actor.name,
            proof=actor.proof,
            source=actor.source,
            trigger=trigger,
            reason=reason,
        )
        detail = {**identity(new), "subject": new.subject, **more}
        place = (environment.project, environment.name)
        records.register.add(actor.event(Kind.DEPLOYMENT_REQUESTED, *place, new.id, detail))
        return new

    def _readable(self, actor: Actor, deployment: int) -> Deployment:
        """The deployment of this number, for whoever may read its project."""
        with self._store.transaction() as records:
            about = records.deployments.get(deployment)
        where, environment = about.project, about.environment
        self._gate.require(actor, Permission.READ, project=where, environment=environment, deployment=deployment)
        return about

    def _manifest(self, project: Project, revision: Revision) -> Manifest:
        text = self._source.read(project.name, revision.commit, FILE_NAME)
        if text is None:
            raise BadInput(
                f"Commit {revision.commit[:12]} of {project.name} has no {FILE_NAME}.",
                code="no_manifest",
                hint="`branchline init` in the repository writes one; commit and push it.",
            )
        manifest = parse(text)
        if manifest.project != project.name:
            raise BadInput(
                f"The manifest says `project: {manifest.project}`, but this is {project.name}.",
                code="wrong_project",
                hint="Deploy the right project, or correct the name in the manifest.",
            )
        return manifest

    def list(
        self,
        actor: Actor,
        project: str | None = None,
        environment: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Page:
        """A page of deployments, newest first: of a project, or of all that the actor may read."""
        among = self._gate.among(actor, Permission.READ, project)
        with self._store.transaction() as records:
            if project is not None:
                records.projects.get(project)
                if environment is not None:
                    records.environments.get(project, environment)
            found = records.deployments.page(among, environment, before, limit + 1)
            items = self._views.deployments(records, found[:limit])
        return Page(items=items, next=items[-1].id if len(found) > limit else None)
