"""The environments of a project."""

from __future__ import annotations

from branchline.server.api import EnvironmentName, ProjectName, router
from branchline.server.auth import CurrentActor, Operations
from branchline.wire import EnvironmentView

api = router("/projects/{project}/environments", "environments")


@api.get("", operation_id="environments.list", summary="The environments of a project")
def environments(actor: CurrentActor, platform: Operations, project: ProjectName) -> list[EnvironmentView]:
    return list(platform.environments.list(actor, project))


@api.get("/{environment}", operation_id="environments.show", summary="One environment")
def show(
    actor: CurrentActor, platform: Operations, project: ProjectName, environment: EnvironmentName
) -> EnvironmentView:
    return platform.environments.show(actor, project, environment)
