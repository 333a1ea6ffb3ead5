"""Projects, and the deployments that are asked for in them."""

from __future__ import annotations

from fastapi import Response

from branchline.server.api import ProjectName, router
from branchline.server.auth import CurrentActor, Operations
from branchline.wire import DeploymentView, NewDeployment, NewProject, ProjectView

api = router("/projects", "projects")


@api.get("", operation_id="projects.list", summary="All projects with their environments")
def projects(actor: CurrentActor, platform: Operations) -> list[ProjectView]:
    return list(platform.projects.list(actor))


@api.post("", operation_id="projects.add", summary="Add a project", status_code=201)
def add(actor: CurrentActor, platform: Operations, new: NewProject, response: Response) -> ProjectView:
    added = platform.projects.add(actor, new.name, new.repository)
    response.headers["Location"] = f"/api/v1/projects/{added.name}"
    return added


@api.get("/{project}", operation_id="projects.show", summary="One project")
def show(actor: CurrentActor, platform: Operations, project: ProjectName) -> ProjectView:
    return platform.projects.show(actor, project)


@api.post(
    "/{project}/deployments",
    operation_id="deployments.request",
    summary="Ask for a deployment",
    description="The ref decides the environment, by the rules of the project's manifest. The deployment is queued; "
    "follow it at `/deployments/{id}/events`.",
    status_code=201,
    tags=["deployments"],
)
def deploy(
    actor: CurrentActor, platform: Operations, project: ProjectName, new: NewDeployment, response: Response
) -> DeploymentView:
    queued = platform.deployments.request(actor, project, new.ref, new.commit, new.trigger, new.reason)
    response.headers["Location"] = f"/api/v1/deployments/{queued.id}"
    return queued
