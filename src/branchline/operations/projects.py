"""Projects and their environments: added, listed, shown."""

from __future__ import annotations

from branchline.domain.access import Actor, Permission
from branchline.domain.audit import Kind
from branchline.domain.names import check_name
from branchline.domain.project import check_repository
from branchline.operations.gate import Gate
from branchline.operations.provenance import Provenance
from branchline.operations.views import Views
from branchline.records import Store
from branchline.wire import EnvironmentView, ProjectView


class Projects:
    """The projects of this platform."""

    def __init__(self, store: Store, gate: Gate, views: Views) -> None:
        self._store = store
        self._gate = gate
        self._views = views

    def add(self, actor: Actor, name: str, repository: str) -> ProjectView:
        """Make a project known. Its repository is looked at when the first deployment is asked for."""
        self._gate.require(actor, Permission.PROJECTS)
        check_name(name, "name of a project")
        check_repository(repository)
        with self._store.transaction() as records:
            project = records.projects.add(name, repository)
            detail = {"repository": repository}
            records.register.add(actor.event(Kind.PROJECT_ADDED, name, detail=detail))
        return ProjectView(name=project.name, repository=project.repository)

    def list(self, actor: Actor) -> list[ProjectView]:
        """All projects that the actor may read, by name, with their environments."""
        among = self._gate.among(actor, Permission.READ)
        with self._store.transaction() as records:
            return [
                ProjectView(
                    name=project.name,
                    repository=project.repository,
                    environments=[
                        self._views.environment(records, one) for one in records.environments.of(project.name)
                    ],
                )
                for project in records.projects.all()
                if among is None or project.name in among
            ]

    def show(self, actor: Actor, name: str) -> ProjectView:
        """One project, with its environments."""
        self._gate.require(actor, Permission.READ, project=name)
        with self._store.transaction() as records:
            project = records.projects.get(name)
            environments = [self._views.environment(records, one) for one in records.environments.of(name)]
            return ProjectView(name=project.name, repository=project.repository, environments=environments)


class Environments:
    """The environments of a project."""

    def __init__(self, store: Store, gate: Gate, views: Views, provenance: Provenance) -> None:
        self._store = store
        self._gate = gate
        self._views = views
        self._provenance = provenance

    def list(self, actor: Actor, project: str) -> list[EnvironmentView]:
        """By name."""
        self._gate.require(actor, Permission.READ, project=project)
        with self._store.transaction() as records:
            records.projects.get(project)
            return [self._views.environment(records, one) for one in records.environments.of(project)]

    def show(self, actor: Actor, project: str, name: str) -> EnvironmentView:
        """One environment: what is live, what runs, what waits, and whether its config has moved on since."""
        self._gate.require(actor, Permission.READ, project=project, environment=name)
        with self._store.transaction() as records:
            records.projects.get(project)
            environment = records.environments.get(project, name)
            view = self._views.environment(records, environment)
        return view.model_copy(update={"config": self._provenance.status(actor, environment)})
